"""What each way to prune does to magnitudes, as data: the plan here and the one in the browser
execute the same laws, and neither names a method.
"""

from __future__ import annotations

from merging.declarations.knobs import Law
from merging.methods import PRUNERS

LAWS: dict[str, Law] = {axis.id: axis.law for axis in PRUNERS.values() if axis.law is not None}
