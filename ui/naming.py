"""A name in a box follows what is to be named until somebody types another."""

from __future__ import annotations

RENAME_JS = """(fresh, name, last) =>
  fresh && (!name.trim() || name === last) ? [fresh, fresh] : [name, last]"""
"""From a name for what is there now, the box and the name last put into it: the box, and the name
last put into it. In the browser, so that a name typed while the server was asked stays."""
