"""No pruning."""

from __future__ import annotations

import torch

from tests.families import document, llama, merged, tuned, write_family


def test_every_change_is_kept(tmp_path) -> None:
    base = llama(0, layers=1)
    expert = tuned(base, 1)
    parent = write_family(tmp_path, base, [expert])
    recipe = document("magnitude", 1, {"prune": "none", "density": 0.01})
    for name, tensor in merged(recipe, parent, tmp_path / "out").items():
        assert torch.equal(tensor, base[name] + (expert[name] - base[name]))
