"""Pruners, consensus rules and the presets that combine them.

A new method: one file here with an AXIS and its pure functions, one line below, one branch where
`merging.stages` builds it, one test.
"""

from merging.declarations.knobs import Axis, Knob, Preset
from merging.methods import dynamic, linear, magnitude, nothing, pcb, random, ties
from merging.methods.presets import PRESETS as _PRESETS

PRUNERS: dict[str, Axis] = {
    axis.id: axis for axis in (nothing.AXIS, random.AXIS, magnitude.AXIS, dynamic.AXIS)
}
CONSENSUS: dict[str, Axis] = {
    axis.id: axis for axis in (linear.SUM, linear.MEAN, ties.AXIS, pcb.AXIS)
}
PRESETS: dict[str, Preset] = {preset.id: preset for preset in _PRESETS}

__all__ = ["CONSENSUS", "PRESETS", "PRUNERS", "Axis", "Knob", "Preset"]
