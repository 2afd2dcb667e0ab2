"""The Merge tab: a recipe in words and YAML, its preflight, the merge, its progress and result.

The merge runs in the background. A page only watches it, so closing or reloading the page changes
nothing: the browser keeps the job's id and asks again.
"""

from ui.merge.layout import MergeRefs, build, draft, memory
from ui.merge.tab import MergeTab
from ui.merge.wiring import wire

__all__ = ["MergeRefs", "MergeTab", "build", "draft", "memory", "wire"]
