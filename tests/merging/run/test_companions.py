"""Files beside the tensors that lie in folders: further templates, modules of sentences."""

from __future__ import annotations

import json

from merging.run.companions import names
from tests.families import small_family


def test_folders_that_belong_to_a_model_are_listed(tmp_path) -> None:
    base = small_family(tmp_path, layers=1, hidden=16, kv=8, inner=24, vocab=20) / "base"
    for folder, file in (
        ("additional_chat_templates", "tool_use.jinja"),
        ("1_Pooling", "config.json"),
        ("2_Dense", "model.safetensors"),
        ("2_Dense", "pytorch_model.bin"),
        ("other", "config.json"),
    ):
        (base / folder).mkdir(exist_ok=True)
        (base / folder / file).write_text("{}")
    paths = ["", "1_Pooling", "2_Dense", "../expert0", "/", "absent", 3]
    (base / "modules.json").write_text(json.dumps([{"path": path} for path in paths]))
    assert list(names(base)) == [
        "modules.json",
        "additional_chat_templates/tool_use.jinja",
        "1_Pooling/config.json",
        "2_Dense/model.safetensors",
    ]
