"""How events of this page are attached: unseen by API clients, unqueued behind other visitors."""

from __future__ import annotations

from typing import Any

PRIVATE: dict[str, Any] = {"api_visibility": "private"}
CHEAP: dict[str, Any] = {**PRIVATE, "show_progress": "hidden", "concurrency_limit": None}
PROMPT: dict[str, Any] = {**CHEAP, "queue": False}
"""For handlers that answer at once: a plain request, apart from the stream that longer ones use."""
