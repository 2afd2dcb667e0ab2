"""How events of this page are attached: unseen by API clients, unqueued behind other visitors."""

from __future__ import annotations

from typing import Any

PRIVATE: dict[str, Any] = {"api_visibility": "private"}
HIDDEN: dict[str, Any] = {**PRIVATE, "show_progress": "hidden", "show_progress_on": []}
"""Of handlers whose progress nothing shows. Gradio tells every component that may show any of every
step of every event, which takes a page of hundreds tens of milliseconds: here none is told."""
CHEAP: dict[str, Any] = {**HIDDEN, "concurrency_limit": None}
PROMPT: dict[str, Any] = {**CHEAP, "queue": False}
"""For handlers that answer at once: a plain request, apart from the stream that longer ones use."""
