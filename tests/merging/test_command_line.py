"""The command line: results on stdout, one line for every mistake, and the exit status."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml

from merging.__main__ import main
from merging.commands import console
from tests.families import (
    document,
    llama,
    load_model,
    small_family,
    tuned,
    write_family,
    write_model,
)
from tests.merging.trial.folders import changed
from tests.merging.trial.test_model import beyond_the_rows

ROOT = Path(__file__).parents[2]
SMALL = {"layers": 1, "hidden": 16, "kv": 8, "inner": 24, "vocab": 20}


@pytest.fixture
def parent(tmp_path, monkeypatch) -> Path:
    folder = small_family(tmp_path / "family", **SMALL)
    monkeypatch.chdir(folder)
    return folder


@pytest.fixture(autouse=True)
def signals():
    """Commands set handlers; each test leaves them as they were."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def recipe_file(parent: Path, recipe: dict | str, name: str = "recipe.yaml") -> str:
    text = recipe if isinstance(recipe, str) else yaml.safe_dump(recipe)
    (parent / name).write_text(text)
    return str(parent / name)


def start(*arguments: str, **options) -> subprocess.Popen:
    command = [sys.executable, "-m", "merging", *arguments]
    return subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options
    )


# merge, check, inspect


def misshapen(folder: Path) -> str:
    """Cuts a row off one linear of a model. Returns the tensor's name."""
    from safetensors.torch import load_file, save_file

    file, name = folder / "model.safetensors", "model.layers.0.self_attn.q_proj.weight"
    tensors = load_file(file)
    save_file({**tensors, name: tensors[name][:-1].contiguous()}, file)
    return name


def test_a_tensor_that_is_only_copied_is_warned_of(parent, capsys) -> None:
    name = "model.layers.0.self_attn.q_proj.weight"
    from safetensors.torch import save_file

    tensors = load_model(parent / "expert1")
    del tensors[name]
    save_file(tensors, parent / "expert1" / "model.safetensors")
    assert main(["merge", recipe_file(parent, document("ties", 2)), "out"]) == 0
    err = capsys.readouterr().err
    assert err == f"warning: {name}: copied: missing in expert1\n"


def test_another_shape_is_refused_unless_the_tensor_is_to_stay(parent, capsys) -> None:
    name = misshapen(parent / "expert1")
    recipe = document("ties", 2)
    assert main(["merge", recipe_file(parent, recipe), "out"]) == 2
    err = capsys.readouterr().err
    assert err.startswith(f"error: {name}: shape [15, 16] in expert1, [16, 16] in the base: ")
    assert "keep_base" in err
    assert not (parent / "out").exists()
    recipe["keep_base"] = ["layers.0.self_attn.q_proj"]
    assert main(["merge", recipe_file(parent, recipe), "out"]) == 0
    tensor = load_model(parent / "out")[name]
    assert (tensor == load_model(parent / "base")[name]).all()
    assert capsys.readouterr().err.startswith(f"note: {name}: copied: kept as the base has it")


def test_a_recipe_that_cannot_be_read_is_a_problem_like_any_other(parent, capsys) -> None:
    recipe = recipe_file(parent, document("ties", 2, {"densty": 1}))
    assert main(["check", recipe, "--json"]) == 2
    report = json.loads(capsys.readouterr().out)
    assert not report["ok"]
    assert [problem["severity"] for problem in report["problems"]] == ["error"]
    assert "densty" in report["problems"][0]["message"]
    assert (report["disk_bytes"], report["memory_bytes"]) == (0, 0)


def test_strict_refuses_what_is_merely_warned_of(parent, capsys) -> None:
    recipe = recipe_file(parent, document("ties", 2))
    assert main(["merge", "--strict", recipe, "fine"]) == 0
    name = misshapen(parent / "expert1")
    assert main(["merge", "--strict", recipe, "out"]) == 2
    assert name in capsys.readouterr().err
    assert not (parent / "out").exists()


def test_strict_refuses_warnings_of_the_kinds_that_it_names(parent, capsys) -> None:
    recipe = recipe_file(parent, document("ties", 2))
    config = {"model_type": "llama", "architectures": ["LlamaForCausalLM"]}
    (parent / "base" / "config.json").write_text(json.dumps({**config, "rope_theta": 10000.0}))
    (parent / "expert1" / "config.json").write_text(json.dumps({**config, "rope_theta": 5.0}))
    assert main(["merge", "--strict=tokenizer,rows", recipe, "out"]) == 0
    for option in ("--strict=rows,config", "--strict", "--strict=all"):
        capsys.readouterr()
        assert main(["merge", option, recipe, "refused"]) == 2
        assert capsys.readouterr().err.splitlines()[-1].startswith("error: --strict=config: ")
    assert not (parent / "refused").exists()


def test_every_kind_of_warning_can_be_named() -> None:
    """What the preflight's findings are about stands in their code as the last word of each."""
    from merging.commands.merge import KINDS

    source = "".join(path.read_text() for path in (ROOT / "merging" / "kinship").glob("*.py"))
    source += (ROOT / "merging" / "run" / "merge.py").read_text()
    named = set(
        re.findall(r'Problem\(\s*"warning",[^()]*(?:\([^()]*\)[^()]*)*"(\w+)",?\s*\)', source)
    )
    assert named
    assert named <= set(KINDS)


def test_a_filter_that_names_no_tensor_is_told(parent, capsys) -> None:
    weight = [{"filter": "mlp", "value": 1}, {"filter": "nosuch", "value": 3}, {"value": 1}]
    recipe = recipe_file(parent, document("ties", [{"weight": weight}, {}]))
    assert main(["check", recipe]) == 0
    assert "filter 'nosuch' is in no merged tensor's name" in capsys.readouterr().out
    assert main(["merge", recipe, "out"]) == 0
    err = capsys.readouterr().err
    assert err.startswith("warning: recipe: filter 'nosuch' is in no merged tensor's name")
    assert err.count("\n") == 1
    assert "mlp" not in err


def test_a_model_that_transformers_cannot_load_is_one_line(tmp_path, capsys) -> None:
    bent = tmp_path / "bent"
    shutil.copytree(ROOT / "assets" / "demo" / "add", bent)
    misshapen(bent)
    assert main(["evaluate", str(bent), "--n", "2"]) == 2
    err = capsys.readouterr().err
    assert "bent: tensor model.layers.0.self_attn.q_proj.weight has shape [159, 160]" in err
    assert "Traceback" not in err


def test_merge_prints_the_folder_and_the_account(parent, capsys) -> None:
    assert main(["merge", recipe_file(parent, document("ties", 2)), "out"]) == 0
    out, err = capsys.readouterr()
    assert str(parent / "out") in out
    assert "12 tensors merged, 0 copied, 0 left out" in out
    assert err == ""


def test_merge_as_json(parent, capsys) -> None:
    write_model(parent / "expert2", tuned(llama(0, **{**SMALL, "vocab": 30}), 5))
    file = recipe_file(parent, document("ties", 3, {"density": 0.3}))
    assert main(["merge", file, "out", "--json", "--device", "cpu", "--shard-size", "5KB"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert set(result) >= {"out", "fingerprint", "seconds", "peak_bytes", "device", "engine"}
    assert result["out"] == str(parent / "out")
    assert result["fingerprint"].startswith("sha256:")
    assert result["device"] == "cpu"
    tensors = result["tensors"]
    assert set(tensors) == {"merged", "copied", "left_out"}
    assert all(set(line) == {"name", "reason"} for lines in tensors.values() for line in lines)
    assert {line["name"] for line in tensors["merged"]} == set(load_model(parent / "out"))
    assert len(list((parent / "out").glob("*.safetensors"))) > 1


def test_check_as_json(parent, capsys) -> None:
    file = recipe_file(parent, document("task_arithmetic", [{"density": 0.1}, {}]))
    assert main(["check", file, "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["ok"] is True
    (problem,) = result["problems"]
    assert set(problem) == {"severity", "where", "message", "kind", "line"}
    assert (problem["severity"], problem["kind"]) == ("warning", "recipe")
    size = sum(tensor.nbytes for tensor in load_model(parent / "base").values())
    assert result["disk_bytes"] == size
    assert result["memory_bytes"] > 0
    assert not (parent / "out").exists()


def test_check_finds_every_problem_and_exits_with_two(parent, capsys) -> None:
    recipe = document("ties", 2)
    recipe["models"].append({"model": "absent"})
    (parent / "expert1" / "model.safetensors").write_bytes(b"")
    assert main(["check", recipe_file(parent, recipe), "--out", "base"]) == 2
    out = capsys.readouterr().out
    assert "error: line 8: absent" in out
    assert "error: line 6: expert1" in out
    assert "not ready" in out
    assert "base exists" in out


def test_inspect_as_json(parent, capsys) -> None:
    assert main(["inspect", "base", "expert0", "expert1", "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert set(result["experts"]) == {"expert0", "expert1"}
    base, expert = load_model(parent / "base"), load_model(parent / "expert0")
    for name, line in result["experts"]["expert0"]["tensors"].items():
        delta = (expert[name] - base[name]).double()
        assert line["numel"] == delta.numel()
        assert line["zeros"] == int((delta == 0).sum())
        assert line["max_abs"] == delta.abs().max().item()
        assert line["mean_abs"] == pytest.approx(delta.abs().mean().item(), rel=1e-6)
        assert line["l1"] == pytest.approx(delta.abs().sum().item(), rel=1e-6)
        assert line["l2"] == pytest.approx(delta.norm().item(), rel=1e-6)


def test_inspect_begins_with_an_overview_by_layer(tmp_path, capsys, monkeypatch) -> None:
    """Two layers of 4 entries and a norm of 2: what changed, and how far, worked out by hand."""
    names = [f"model.layers.{i}.mlp.up_proj.weight" for i in range(2)]
    base = {name: torch.full((2, 2), 2.0) for name in names} | {"model.norm.weight": torch.ones(2)}
    moved = {name: tensor.clone() for name, tensor in base.items()}
    moved[names[0]][0, 0] += 1.0
    moved[names[1]] += 0.5
    write_model(tmp_path / "base", base)
    write_model(tmp_path / "a" / "tuned", moved)
    write_model(tmp_path / "b" / "tuned", base)
    monkeypatch.chdir(tmp_path)
    assert main(["inspect", "base", "a/tuned", "b/tuned"]) == 0
    lines = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]
    assert lines[:5] == [
        "a/tuned entries changed mean|d| max|d| |d|/|base|",
        "layer 0 4 25.0 % 2.500e-01 1.000e+00 2.50e-01",
        "layer 1 4 100 % 5.000e-01 5.000e-01 2.50e-01",
        "outside the layers 2 0 % 0.000e+00 0.000e+00 0.00e+00",
        "all 10 50.0 % 3.000e-01 1.000e+00 2.43e-01",  # sqrt(2) / sqrt(34)
    ]
    assert lines[9] == "b/tuned entries changed mean|d| max|d| |d|/|base|"
    assert "cosine of a/tuned and b/tuned: none: one of them is the base" in lines
    assert lines[lines.index("a/tuned, tensor by tensor") + 2].startswith(names[0])
    assert main(["inspect", "base", "a/tuned", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)["experts"]["a/tuned"]
    assert report["layers"]["layer 0"] == {
        "numel": 4,
        "zeros": 3,
        "mean_abs": 0.25,
        "max_abs": 1.0,
        "l1": 1.0,
        "l2": 1.0,
        "base_l2": 4.0,
    }
    assert (report["all"]["numel"], report["all"]["zeros"]) == (10, 5)


@pytest.mark.parametrize(
    ("part", "whole", "text"),
    [
        (0, 9, "0 %"),
        (9, 9, "100 %"),
        (1, 10_000, "< 0.1 %"),
        (9999, 10_000, "> 99.9 %"),
        (1, 3, "33.3 %"),
        (0, 0, "0 %"),
    ],
)
def test_only_none_is_0_percent_and_only_all_is_100(part: int, whole: int, text: str) -> None:
    from merging.commands import inspect

    assert inspect._share(part, whole) == text


# mistakes


def edited(**change) -> dict:
    return {**document("ties", 2), **change}


def sliced(layers: int) -> dict:
    sources = [{"model": f"demo:{name}", "layer_range": [0, layers]} for name in ("add", "sort")]
    return {"merge_method": "ties", "base_model": "demo:base", "slices": [{"sources": sources}]}


def test_a_file_of_several_recipes_is_checked_and_merged(parent, tmp_path, capsys) -> None:
    first = {**document("task_arithmetic", 1), "name": "first"}
    last = {"merge_method": "linear", "models": ["first", "base"]}
    file = recipe_file(parent, yaml.safe_dump_all([last, first]), "stages.yaml")
    assert main(["check", file, "--out", str(tmp_path / "out")]) == 0
    assert "ready" in capsys.readouterr().out
    stages = tmp_path / "kept"
    assert main(["merge", file, str(tmp_path / "out"), "--intermediate-dir", str(stages)]) == 0
    assert (stages / "first" / "model.safetensors").exists()
    before = {path.name for path in tmp_path.iterdir()}
    assert main(["merge", file, str(tmp_path / "again")]) == 0
    assert {path.name for path in tmp_path.iterdir()} == {*before, "again"}  # nothing hidden


MISTAKES = {
    "a misspelt parameter": (edited(parameters={"densty": 0.1}), ["densty", "density"]),
    "a misspelt key": (edited(merge_methd="ties"), ["merge_methd", "merge_method"]),
    "a misspelt method": (edited(merge_method="tise"), ["tise", "ties"]),
    "a misspelt type": (edited(dtype="fp16"), ["fp16", "float16"]),
    "a density above one": (edited(parameters={"density": 1.7}), ["density", "1.7"]),
    "weights that cancel": (
        document("linear", [{"weight": 1}, {"weight": -1}]),
        ["weights", "sum to 0"],
    ),
    "no base": ({k: v for k, v in edited().items() if k != "base_model"}, ["base_model"]),
    "no models": (edited(models=[]), ["models"]),
    "a model twice": (edited(models=["expert0", "expert0"]), ["expert0", "twice"]),
    "an absent model": (edited(models=["nowhere"]), ["nowhere", "folder"]),
    "an absent base": (edited(base_model="nowhere"), ["nowhere"]),
    "an unknown built-in model": (edited(models=["demo:nope"]), ["demo:nope", "demo:base"]),
    "slices": (edited(slices=[]), ["slices"]),
    "a slice of too many layers": (sliced(5), ["[0, 5]", "demo:base", "4 layers"]),
    "no yaml": ("a: [", ["YAML", "line 1"]),
    "an alias that holds itself": (
        "merge_method: ties\nbase_model: &a {model: *a}\nmodels: [expert0]",
        ["line 2", "'*a'"],
    ),
    "twelve thousand models": (
        edited(models=[f"m{i}" for i in range(12_000)]),
        ["12000", "at most 256"],
    ),
    "keys of many types": (
        edited(parameters={"weight": [{1: 2, None: 3, "value": 4}]}),
        ["filter", "value"],
    ),
    "an empty recipe": ("", ["recipe", "empty"]),
    "another parameter's method": (
        edited(parameters={"linear_outlier": 3}),
        ["linear_outlier", "dynamic"],
    ),
    "the output as an expert": (edited(models=["base/../out"]), ["out"]),
}


@pytest.mark.parametrize("mistake", sorted(MISTAKES))
def test_a_mistake_in_the_recipe_is_one_line(mistake: str, parent, capsys) -> None:
    recipe, words = MISTAKES[mistake]
    assert main(["merge", recipe_file(parent, recipe), "out"]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert all(word in err for word in words), err
    assert not (parent / "out").exists()


def test_a_mistake_in_the_recipe_is_told_with_its_file_and_line(parent, capsys) -> None:
    text = "merge_method: ties\nbase_model: base\nmodels:\n- expert0\n- expert1\ndtpe: float32\n"
    file = recipe_file(parent, text)
    for command in (["check", file], ["merge", file, "out"]):
        assert main(command) == 2
        assert capsys.readouterr().err.startswith(f"error: {file}, line 6: unknown key 'dtpe'")
    assert main(["check", file, "--json"]) == 2
    (problem,) = json.loads(capsys.readouterr().out)["problems"]
    assert problem["line"] == 6
    assert problem["message"].startswith("unknown key 'dtpe'")


def test_a_model_that_is_not_there_is_told_with_its_line(parent, capsys) -> None:
    file = recipe_file(
        parent, "merge_method: ties\nbase_model: base\nmodels:\n- expert0\n- nowhere\n"
    )
    assert main(["merge", file, "out"]) == 2
    assert capsys.readouterr().err.startswith("error: line 5: nowhere: ")


def truncate(folder: Path) -> None:
    data = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(data[:-100])


def pickle(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")


def other_shape(folder: Path) -> None:
    write_model(folder.with_name("moved"), llama(0, **{**SMALL, "hidden": 24}))
    (folder.with_name("moved") / "model.safetensors").replace(folder / "model.safetensors")


def not_a_number(folder: Path) -> None:
    tensors = load_model(folder)
    tensors["lm_head.weight"][1, 1] = torch.nan
    (folder / "model.safetensors").unlink()
    from safetensors.torch import save_file

    save_file(tensors, folder / "model.safetensors")


DAMAGES = {
    "truncated": (truncate, ["expert1", "truncated"]),
    "pickle": (pickle, ["expert1", "pickle"]),
    "another model": (other_shape, ["parameters", "merged", "expert1"]),
    "not a number": (not_a_number, ["expert1", "lm_head.weight", "nan"]),
    "no config": (lambda f: (f / "config.json").unlink(), ["expert1", "config.json"]),
    "remote code": (
        lambda f: (f / "config.json").write_text('{"auto_map": {"A": "b"}}'),
        ["auto_map"],
    ),
    "quantized": (
        lambda f: (f / "config.json").write_text('{"quantization_config": {"a": 1}}'),
        ["quantized"],
    ),
}


@pytest.mark.parametrize("damage", sorted(DAMAGES))
def test_a_damaged_model_is_one_line(damage: str, parent, capsys) -> None:
    function, words = DAMAGES[damage]
    function(parent / "expert1")
    assert main(["merge", recipe_file(parent, document("ties", 2)), "out"]) == 2
    err = capsys.readouterr().err
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert all(word in err for word in words), err
    assert not (parent / "out").exists()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["inspect", "base", "absent"], ["absent"]),
        (["inspect", "base", "expert0", "expert0"], ["twice"]),
        (["inspect", "base", "expert0", "./expert0"], ["expert0 and ./expert0", "twice"]),
        (["check", "absent.yaml"], ["absent.yaml"]),
        (["check", "/dev/zero"], ["/dev/zero", "is a device"]),
        (["check", "."], [".: is a folder"]),
        (["check", "demo:ad_sort"], ["demo:ad_sort", "did you mean add_sort?"]),
        (["merge", "absent.yaml", "out"], ["absent.yaml"]),
        (["merge", "recipe.yaml", "base"], ["base", "not empty"]),
        (["merge", "recipe.yaml", "base", "--overwrite"], ["base", "another name"]),
        (["merge", "recipe.yaml", "recipe.yaml"], ["recipe.yaml", "is a file"]),
        (["merge", "recipe.yaml", "recipe.yaml/out"], ["recipe.yaml/out"]),
        (["merge", "recipe.yaml", "."], ["the folder you are in"]),
        (["evaluate", "absent"], ["absent"]),
        (["evaluate", "base"], ["base", "no tokenizer"]),
        (["evaluate", "demo:base", "--n", "1001"], ["1 to 1000", "1001"]),
        (["search", "recipe.yaml", "--out", "absent/found.yaml"], ["absent/found.yaml"]),
        (["search", "recipe.yaml", "--tasks", "absent.jsonl"], ["absent.jsonl"]),
        (["demo", "build", "base"], ["base", "not empty"]),
    ],
    ids=" ".join,
)
def test_a_wrong_argument_is_one_line(arguments, words, parent, capsys) -> None:
    recipe_file(parent, document("ties", 2))
    before = sorted(parent.rglob("*"))
    assert main(arguments) == 2
    err = capsys.readouterr().err
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert all(word in err for word in words), err
    assert sorted(parent.rglob("*")) == before


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["mrge"],
        ["merge"],
        ["merge", "a"],
        ["merge", "a", "b", "--device", "tpu"],
        ["merge", "a", "b", "--shard-size", "big"],
        ["merge", "a", "b", "--shard-size", "0"],
        ["merge", "a", "b", "--shard-size", "nan"],
        ["merge", "a", "b", "--shard-size", "inf"],
        ["merge", "a", "b", "--strict=rope"],
        ["inspect", "base"],
        ["evaluate"],
        ["evaluate", "m", "--n", "0"],
        ["demo"],
    ],
    ids=" ".join,
)
def test_wrong_usage_exits_with_two(arguments, capsys) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(arguments)
    assert stopped.value.code == 2
    err = capsys.readouterr().err
    assert err.startswith("error: ")
    assert err.endswith("--help\n")
    assert err.count("\n") == 1


@pytest.mark.parametrize(
    ("text", "size"), [("5GB", 5 * 10**9), ("500mb", 5 * 10**8), ("1.5KB", 1500), ("77", 77)]
)
def test_sizes_as_people_write_them(text: str, size: int) -> None:
    assert console.size(text) == size


# real processes


def test_help_and_usage_errors_need_no_torch() -> None:
    code = (
        "import sys\nfrom merging.__main__ import main\n"
        "try:\n    main(sys.argv[1:])\nexcept SystemExit as stop:\n    status = stop.code\n"
        "assert 'torch' not in sys.modules\nsys.exit(status)"
    )
    for arguments, status in ((["--help"], 0), (["merge", "--help"], 0), (["mrge"], 2)):
        done = subprocess.run(
            [sys.executable, "-c", code, *arguments], cwd=ROOT, capture_output=True, text=True
        )
        assert done.returncode == status, done.stderr


def test_a_process_prints_one_json_object_and_nothing_else(tmp_path) -> None:
    parent = small_family(tmp_path, **SMALL)
    file = recipe_file(parent, document("dppa", 2))
    process = start("merge", file, str(tmp_path / "out"), "--json")
    out, err = process.communicate()
    assert process.returncode == 0, err
    assert json.loads(out)["out"] == str(tmp_path / "out")
    assert err == ""


@pytest.mark.parametrize("flags", [[], ["--json"]])
def test_a_model_that_is_written_is_told_of_where_stdout_is_full(tmp_path, flags) -> None:
    parent = small_family(tmp_path, **SMALL)
    file, out = recipe_file(parent, document("ties", 2)), tmp_path / "out"
    command = [sys.executable, "-m", "merging", "merge", file, str(out), *flags]
    with open("/dev/full", "w") as full:
        done = subprocess.run(command, cwd=ROOT, stdout=full, stderr=subprocess.PIPE, text=True)
    assert done.returncode == 2
    assert done.stderr == (
        "error: stdout cannot be written (no space left on device), but the model is written: "
        f"{out}\n"
    )
    assert len(load_model(out)) == 12


def test_a_mistake_exits_with_two_and_no_traceback(tmp_path) -> None:
    process = start("merge", str(tmp_path / "absent.yaml"), str(tmp_path / "out"))
    out, err = process.communicate()
    assert (process.returncode, out) == (2, "")
    assert err.count("\n") == 1
    assert "Traceback" not in err


@pytest.fixture(scope="module")
def large(tmp_path_factory) -> Path:
    """A family that takes long enough to merge that a process can be stopped in the middle."""
    parent = tmp_path_factory.mktemp("large")
    generator = torch.Generator().manual_seed(0)
    base = {
        f"model.layers.{i}.mlp.up_proj.weight": torch.randn(2048, 2048, generator=generator)
        .mul_(0.02)
        .bfloat16()
        for i in range(10)
    }
    write_model(parent / "base", base)
    for index in range(2):
        shift = 0.001 * (index + 1)
        write_model(parent / f"expert{index}", {n: t + shift * t.sign() for n, t in base.items()})
    recipe_file(parent, document("pcb", 2))
    return parent


def wait_for_work(process: subprocess.Popen, folder: Path) -> None:
    """Returns once the process writes: its hidden folder is there."""
    while process.poll() is None and not any(folder.iterdir()):
        os.sched_yield()
    assert process.poll() is None, process.communicate()


def test_an_interrupt_exits_with_130_and_leaves_nothing(large, tmp_path) -> None:
    process = start("merge", str(large / "recipe.yaml"), str(tmp_path / "out"))
    wait_for_work(process, tmp_path)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate()
    assert process.returncode == 130, err
    assert out == ""
    *progress, last = err.splitlines()  # a line of progress where the machine is slow
    assert last == "interrupted; nothing was left behind"
    assert all("%" in line for line in progress)
    assert list(tmp_path.iterdir()) == []


def test_a_killed_merge_leaves_no_output_and_the_next_one_succeeds(large, tmp_path) -> None:
    process = start("merge", str(large / "recipe.yaml"), str(tmp_path / "out"))
    wait_for_work(process, tmp_path)
    process.kill()
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    assert not (tmp_path / "out").exists()
    assert all(path.name.startswith(".") for path in tmp_path.iterdir())
    file = recipe_file(large, document("linear", 2), "quick.yaml")
    assert main(["merge", file, str(tmp_path / "out")]) == 0
    assert len(load_model(tmp_path / "out")) == 10


def kill_midway(large: Path, out: Path, *flags: str, number: int = signal.SIGKILL) -> Path:
    """Ends a merge when some of its tensors are finished. Returns its hidden folder."""
    process = start("merge", str(large / "recipe.yaml"), str(out), *flags)
    journal = None
    while process.poll() is None:
        journal = journal or next(out.parent.glob(f".{out.name}.partial-*/.journal"), None)
        if journal and len(journal.read_text().splitlines()) >= 3:
            process.send_signal(number)
            break
    process.communicate()
    assert process.returncode in (-signal.SIGKILL, 130)
    assert journal is not None
    return journal.parent


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_an_interrupted_merge_goes_on_where_it_was(large, tmp_path, monkeypatch, number) -> None:
    from merging.engines import fused

    out, whole = tmp_path / "out", tmp_path / "whole"
    remnant = kill_midway(large, out, "--resume", number=number)
    finished = len((remnant / ".journal").read_text().splitlines()) - 1
    opened: list[str] = []
    real = fused.FusedReader.merge

    def counted(self, *arguments):
        opened.append(self.entry.name)
        return real(self, *arguments)

    monkeypatch.setattr(fused.FusedReader, "merge", counted)
    assert main(["merge", str(large / "recipe.yaml"), str(out), "--resume"]) == 0
    assert len(opened) == 10 - finished < 10
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out"]
    assert main(["merge", str(large / "recipe.yaml"), str(whole)]) == 0
    assert {p.name: p.read_bytes() for p in out.iterdir()} == {
        p.name: p.read_bytes() for p in whole.iterdir()
    }


def test_without_resume_a_killed_merge_is_begun_anew(large, tmp_path) -> None:
    remnant = kill_midway(large, tmp_path / "out")
    assert main(["merge", str(large / "recipe.yaml"), str(tmp_path / "out")]) == 0
    assert not remnant.exists()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out"]


# search


def demo_pair(parent: Path) -> str:
    models = [{"model": f"demo:{name}", "parameters": {"weight": 0.5}} for name in ("add", "sort")]
    return recipe_file(
        parent, {"merge_method": "task_arithmetic", "base_model": "demo:base", "models": models}
    )


def test_search_prints_a_recipe_with_weights_per_layer(parent, capsys) -> None:
    assert main(["search", demo_pair(parent), "--steps", "2", "--n", "8"]) == 0
    recipe = yaml.safe_load(capsys.readouterr().out)
    rules = recipe["models"][0]["parameters"]["weight"]
    assert rules[0]["filter"] == "mlp.down_proj.weight"
    assert len(rules[0]["value"]) == 4


def test_search_writes_a_file_that_merges(parent, capsys) -> None:
    arguments = ["search", demo_pair(parent), "--steps", "1", "--n", "4", "--out", "found.yaml"]
    assert main([*arguments, "--json"]) == 0
    assert set(json.loads(capsys.readouterr().out)["loss"]) == {"first", "last"}
    assert main(["merge", "found.yaml", "out"]) == 0
    assert main(arguments) == 2  # nothing is overwritten
    assert "found.yaml exists" in capsys.readouterr().err


def test_scores_are_printed_as_they_are_known_and_kept_when_stopped(parent) -> None:
    process = start("evaluate", "demo:add", "demo:sort", "demo:base", "--n", "60")
    assert process.stdout is not None and process.stderr is not None
    first = process.stdout.readline()
    process.send_signal(signal.SIGINT)
    rest = process.stdout.read()
    assert process.wait() == 130
    assert re.match(r"demo:add +add +100.0%", first)
    count = 1 + len(rest.splitlines())
    assert f"interrupted; {count} of 12 scores are known" in process.stderr.read()


def test_evaluate_names_a_token_without_a_row(tmp_path, capsys) -> None:
    changed(tmp_path / "bent", beyond_the_rows, "tokenizer.json")
    tasks = tmp_path / "tasks.jsonl"
    tasks.write_text(json.dumps({"domain": "d", "prompt": "hello <y>", "answer": "one"}))
    assert main(["evaluate", str(tmp_path / "bent"), "--tasks", str(tasks)]) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.count("\n") == 1
    assert "token '<y>' of id 346, the embedding has 346 rows" in err


def test_search_without_prompts_for_these_models_says_so(parent, capsys) -> None:
    assert main(["search", recipe_file(parent, document("task_arithmetic", 2))]) == 2
    assert "--tasks FILE" in capsys.readouterr().err


def test_inspect_tells_what_equal_changes_do_to_a_cut(tmp_path, capsys, monkeypatch) -> None:
    """Of 100 entries 10 change by 1 and 30 by 0.5: a cut at 20 of them goes through the latter."""
    name = "model.layers.0.mlp.up_proj.weight"
    change = torch.cat([torch.full((10,), 1.0), torch.full((30,), 0.5), torch.zeros(60)])
    base = {name: torch.zeros(10, 10)}
    write_family(tmp_path, base, [{name: change.reshape(10, 10)}])
    monkeypatch.chdir(tmp_path)
    assert main(["inspect", "base", "expert0", "--json"]) == 0
    cuts = json.loads(capsys.readouterr().out)["experts"]["expert0"]["cuts"]
    assert [(cut["asked"], cut["kept"]) for cut in cuts] == [(0.1, 0.1), (0.2, 0.2), (0.5, 0.4)]
    assert [cut["kept_without_ties"] for cut in cuts] == [0.1, 0.1, 0.4]
    assert main(["inspect", "base", "expert0"]) == 0
    assert (
        "a cut asked to keep 20 % keeps 20.0 %, without the changes that equal it 10.0 %"
        in capsys.readouterr().out
    )
