"""Settings, and the page as it is built: what is offered, served and kept private."""

from __future__ import annotations

import signal
import socket
from pathlib import Path

import pytest

import app
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
    ("arguments", "env"),
    [
        (["--port", "x"], {}),
        (["--port", "70000"], {}),
        (["--device", "tpu"], {}),
        (["--models", __file__], {}),
        (["--models", f"{__file__}/below"], {}),
        (["--models", "a" * 5000], {}),
        (["--chat-gib", "nan"], {}),
        (["--chat-gib", "-1"], {}),
        (["--auth", "nobody"], {}),
        (["--auth", ":word"], {}),
        (["--auth", "a:b", "--no-auth"], {}),
        (["--allow-host", "http://lab.example"], {}),
        (["--allow-host", "lab.example:x"], {}),
        (["--host", "0.0.0.0"], {}),
        (["--host", "::"], {}),
        (["--host", ""], {}),
        ([], {"GRADIO_SERVER_NAME": "0.0.0.0"}),
        ([], {"AMALGAM_HOST": "192.0.2.7"}),
        ([], {"AMALGAM_AUTH": "nobody"}),
        ([], {"AMALGAM_PORT": "x"}),
        ([], {"AMALGAM_DEVICE": "tpu"}),
    ],
)
def test_wrong_arguments_end_with_status_two_and_one_line(
    arguments: list[str], env: dict[str, str], capsys
) -> None:
    with pytest.raises(SystemExit) as caught:
        from_arguments(arguments, env)
    assert caught.value.code == 2
    message = capsys.readouterr().err
    assert message.count("\n") == 1
    assert len(message) <= 501
    named = arguments[0] if arguments else next(iter(env)).replace("GRADIO_SERVER_NAME", "--host")
    assert named in message or named.lower().replace("amalgam_", "--") in message


def test_other_machines_are_let_in_with_a_password_or_by_saying_so(capsys) -> None:
    settings = from_arguments(["--host", "0.0.0.0", "--auth", "ann:a:b", "--auth", "bob:c"], {})
    assert settings.auth == (("ann", "a:b"), ("bob", "c"))
    assert from_arguments([], {"AMALGAM_HOST": "0.0.0.0", "AMALGAM_AUTH": "a:b"}).auth
    assert capsys.readouterr().err == ""
    assert from_arguments(["--host", "0.0.0.0", "--no-auth"], {}).auth == ()
    assert "whoever reaches 0.0.0.0" in capsys.readouterr().err


def test_a_space_needs_no_arguments() -> None:
    env = {"SPACE_HOST": "me-amalgam.hf.space,lab.example", "GRADIO_SERVER_NAME": "0.0.0.0"}
    settings = from_arguments([], env)
    assert settings.is_space
    assert [one.name for one in settings.names.named] == ["me-amalgam.hf.space", "lab.example"]


def test_a_proxy_is_named_by_argument_or_environment() -> None:
    for settings in (
        from_arguments(["--allow-host", "lab.example:8443", "--allow-host", "desk"], {}),
        from_arguments([], {"AMALGAM_ALLOW_HOST": "lab.example:8443, desk"}),
    ):
        assert [(one.name, one.port) for one in settings.names.named] == [
            ("lab.example", 8443),
            ("desk", None),
        ]


def test_a_port_in_use_is_told_in_one_line(capsys) -> None:
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    with socket.create_server(("127.0.0.1", 0)) as taken:
        try:
            assert app.main(["--port", str(taken.getsockname()[1])]) == 2
        finally:
            for number, handler in handlers.items():
                signal.signal(number, handler)
    message = capsys.readouterr().err
    assert "--port" in message
    assert message.count("\n") == 1


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory):
    from ui.app import build

    folder = tmp_path_factory.mktemp("models")
    return build(Settings(models=(folder,), cache=folder / "cache", device="cpu"))


def test_every_event_is_private(built) -> None:
    public = [fn.api_name for fn in built.demo.fns.values() if fn.api_visibility != "private"]
    assert public == []


def test_nothing_is_added_where_the_owner_does_not_allow_it(built) -> None:
    handlers = [getattr(fn.fn, "__qualname__", "") for fn in built.demo.fns.values()]
    assert "MergeTab.started" in handlers
    assert not [name for name in handlers if name.startswith("AddingTab.")]
    assert "Add a model" not in str(built.demo.get_config_file())
    assert not from_arguments([], {}).allow_hub and from_arguments(["--allow-hub"], {}).allow_hub


def test_launch_is_closed_to_the_outside(built) -> None:
    launch = built.launch
    assert launch["server_name"] == "127.0.0.1"
    assert launch["run_history"] is False
    assert launch["show_error"] is False
    assert launch["enable_monitoring"] is False
    assert launch["footer_links"] == []
    assert launch["blocked_paths"]
    assert "allowed_paths" not in launch


def test_no_event_makes_users_wait_for_each_other(built) -> None:
    for fn in built.demo.fns.values():
        if fn.fn is not None and fn.queue and fn.name != "leave":
            assert fn.concurrency_limit in (None, 4), fn.name


def test_no_component_is_told_of_progress_that_nothing_shows(built) -> None:
    events = [fn for fn in built.demo.fns.values() if fn.fn and fn.outputs]
    hidden = [fn for fn in events if fn.show_progress == "hidden"]
    assert len(hidden) > 50
    assert [fn.name for fn in hidden if fn.show_progress_on != []] == []


def test_answers_share_a_few_streams_and_none_is_dropped(built) -> None:
    asks = [fn for fn in built.demo.fns.values() if fn.name == "answered"]
    assert len(asks) == 4
    assert {(fn.concurrency_limit, fn.concurrency_id) for fn in asks} == {(4, "chat")}
    assert {fn.trigger_mode for fn in asks} == {"multiple"}
