"""Settings, and the page as it is built: what is offered, served and kept private."""

from __future__ import annotations

from pathlib import Path

import pytest

from ui.settings import Settings, from_arguments


def test_defaults_listen_on_this_machine_only() -> None:
    settings = from_arguments([], {})
    assert settings == Settings()
    assert settings.host == "127.0.0.1"


def test_arguments_win_over_the_environment() -> None:
    env = {"AMALGAM_PORT": "7000", "AMALGAM_DEVICE": "cpu", "AMALGAM_MODELS": "elsewhere"}
    settings = from_arguments(["--port", "8000"], env)
    assert (settings.port, settings.device) == (8000, "cpu")
    assert settings.models == (Path("elsewhere"),)


def test_models_may_be_repeated() -> None:
    settings = from_arguments(["--models", "a", "--models", "b"], {})
    assert settings.models == (Path("a"), Path("b"))


@pytest.mark.parametrize(
    "arguments", [["--port", "x"], ["--port", "70000"], ["--device", "tpu"], ["--models", __file__]]
)
def test_wrong_arguments_end_with_status_two(arguments: list[str], capsys) -> None:
    with pytest.raises(SystemExit) as caught:
        from_arguments(arguments, {})
    assert caught.value.code == 2
    assert arguments[0] in capsys.readouterr().err


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory):
    from ui.app import build

    folder = tmp_path_factory.mktemp("models")
    return build(Settings(models=(folder,), cache=folder / "cache", device="cpu"))


def test_every_event_is_private(app) -> None:
    public = [fn.api_name for fn in app.demo.fns.values() if fn.api_visibility != "private"]
    assert public == []


def test_launch_is_closed_to_the_outside(app) -> None:
    launch = app.launch
    assert launch["server_name"] == "127.0.0.1"
    assert launch["run_history"] is False
    assert launch["show_error"] is False
    assert launch["enable_monitoring"] is False
    assert launch["footer_links"] == []
    assert launch["blocked_paths"]
    assert "allowed_paths" not in launch


def test_no_event_makes_users_wait_for_each_other(app) -> None:
    for fn in app.demo.fns.values():
        if fn.fn is not None and fn.queue and fn.name != "left":
            assert fn.concurrency_limit in (None, 4), fn.name
