"""What `pip install .` brings: every module and file that is needed, and nothing of the tests."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from merging import __version__

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())


@pytest.fixture(scope="module")
def installed(tmp_path_factory) -> Path:
    """The files of a wheel, where a wheel would put them."""
    folder = tmp_path_factory.mktemp("installed")
    code = "from setuptools import setup; setup()"
    options = ["-q", "egg_info", "--egg-base", str(folder), "build_py", "--build-lib", str(folder)]
    subprocess.run([sys.executable, "-c", code, *options], cwd=ROOT, check=True)
    return folder


def files(folder: Path, *patterns: str) -> set[str]:
    return {
        str(path.relative_to(folder))
        for pattern in patterns
        for path in folder.rglob(pattern)
        if path.is_file()
    }


def test_every_file_that_is_needed_is_brought(installed) -> None:
    for package in ("merging", "ui"):
        sources = files(ROOT / package, "*.py", "*.c", "*.h")
        assert files(installed / package, "*") == sources
    shown = {name for name in files(ROOT / "assets", "*") if not name.startswith("screenshots/")}
    assert files(installed / "amalgam_assets", "*") == shown
    assert {"app.py", "amalgam.py"} <= {path.name for path in installed.iterdir()}
    assert not (installed / "tests").exists()


def test_it_runs_from_any_folder(installed, tmp_path) -> None:
    code = (
        f"import sys; sys.path.insert(0, {str(installed)!r})\n"
        "import amalgam, merging\n"
        f"assert merging.__file__.startswith({str(installed)!r})\n"
        "sys.argv[1:] = ['check', 'demo:add_sort']\n"
        "sys.exit(amalgam.installed())"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("ready: 39 of 39 tensors merged")


def test_the_project_file_says_what_the_others_say() -> None:
    first = (ROOT / "requirements.txt").read_text().split("\n\n")[0].splitlines()
    pins = [line for line in first if not line.startswith("#")]
    assert PROJECT["project"]["dependencies"] == pins
    assert PROJECT["project"]["version"] == __version__
    assert PROJECT["project"]["scripts"] == {"amalgam": "amalgam:installed"}
