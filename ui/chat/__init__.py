"""The Chat tab: one question to several models, answers side by side, compared and voted on.

The conversation lives in the browser (`assets/chat*.js`), which keeps it over a reload and asks for
one answer at a time; the server writes answers and remembers none.
"""

from ui.chat.layout import ChatRefs, first_models, layout
from ui.chat.tab import ChatTab
from ui.chat.wiring import wire

__all__ = ["ChatRefs", "ChatTab", "first_models", "layout", "wire"]
