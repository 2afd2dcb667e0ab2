"""The house itself: what imports what, and what must stand nowhere."""

from __future__ import annotations

import ast
import importlib
import subprocess
import sys
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
MODULES = sorted((ROOT / "merging").rglob("*.py"))
SOURCES = [
    *MODULES,
    *sorted((ROOT / "ui").rglob("*.py")),
    *sorted((ROOT / "tests").rglob("*.py")),
    ROOT / "app.py",
    ROOT / "amalgam.py",
]


def name_of(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imported(path: Path) -> set[str]:
    """Full names of everything that a file imports, inside functions too."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are absolute"
            names |= {f"{node.module}.{alias.name}" for alias in node.names} | {str(node.module)}
    return names


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_every_module_imports_and_says_what_it_is(path: Path) -> None:
    module = importlib.import_module(name_of(path))
    assert module.__doc__


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_models_know_no_screen(path: Path) -> None:
    roots = {name.split(".")[0] for name in imported(path)}
    assert not roots & {"gradio", "plotly", "ui", "app", "tests"}


@pytest.mark.parametrize("path", sorted((ROOT / "ui").rglob("*.py")), ids=name_of)
def test_screens_do_no_tensor_arithmetic(path: Path) -> None:
    assert "torch" not in {name.split(".")[0] for name in imported(path)}


LAYERS = [  # a module imports from its own line and those above it
    {"merging.errors", "merging.later", "merging.system"},
    {"merging.demo", "merging.commands.console", "merging.recipe.chat_templates"},
    {"merging.checkpoints", "merging.selection", "merging.kernels", "merging.sketches.sketch"},
    {"merging.hub"},
    {"merging.instructions"},
    {"merging.declarations"},
    {"merging.evidence"},
    {"merging.methods"},
    {"merging.recipe"},
    {"merging.kinship"},
    {"merging.hub.listing", "merging.hub.fetching"},
    {"merging.gpu", "merging.engines.sources"},
    {"merging.engines.eager"},
    {"merging.engines", "merging.gpu.stream"},
    {"merging.sketches"},
    {"merging.run"},
    {"merging.trial"},
    {"merging.live"},
    {"merging.commands"},
    {"merging.command_line"},
    {"merging.__main__"},
]


def room(name: str) -> int | None:
    inside = [
        (len(one), level)
        for level, rooms in enumerate(LAYERS)
        for one in rooms
        if name == one or name.startswith(one + ".")
    ]
    return max(inside)[1] if inside else None  # the smallest room that it is in


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_arrows_go_one_way(path: Path) -> None:
    own = room(name_of(path))
    if name_of(path) == "merging":
        return
    assert own is not None, "give the new room its place among the layers"
    if "merging.demo" in name_of(path):
        return  # training uses whatever it needs
    for name in imported(path):
        level = room(name)
        assert level is None or level <= own, name


def modules_imported(path: Path) -> set[str]:
    """Modules of ours that a file imports at its top, so that they are run before it."""
    names: set[str] = set()
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.ImportFrom):
            inside = {f"{node.module}.{alias.name}" for alias in node.names}
            names |= (inside & OURS.keys()) or {str(node.module)}
    return (names & OURS.keys()) - {name_of(path)}


OURS = {name_of(path): path for path in MODULES}


def test_no_modules_import_each_other_in_a_circle() -> None:
    graph = {name: modules_imported(path) for name, path in OURS.items()}
    try:
        list(TopologicalSorter(graph).static_order())
    except CycleError as error:
        raise AssertionError(" -> ".join(error.args[1])) from None


def test_importing_the_command_line_and_the_words_needs_no_torch() -> None:
    code = (
        "import sys, merging.__main__, merging.run.merge, "
        "merging.demo, merging.sketches.scan\nassert 'torch' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: str(p.relative_to(ROOT)))
def test_no_test_is_skipped_and_no_local_path_is_named(path: Path) -> None:
    text = path.read_text()
    words = ["/" + "work/", "/" + "root/", "/" + "home/"]
    words += ["mark." + "skip", "pytest." + "skip", "mark." + "xfail", "import" + "orskip"]
    matches = [word for word in words if word in text]
    assert not matches


def test_data_for_tests_stays_small() -> None:
    size = sum(path.stat().st_size for path in (ROOT / "tests" / "data").rglob("*"))
    assert size <= 8_000_000
