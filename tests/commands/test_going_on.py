"""What an operator is told when the arms have stopped by themselves."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from aloha_runtime.commands import going_on, operate
from aloha_runtime.errors import AlohaError, ArmsStopped, ProcessError, ShutDown
from aloha_runtime.messages import Mode, ModeHeartbeat
from aloha_runtime.run_directory import default_run_dir

STALL = "this computer stood still for 140 ms; close other programs, see `aloha bench jitter`"


@pytest.mark.parametrize(
    ("given", "left", "line"),
    [
        ("record --dataset d --episodes 9 --task t", 4, "aloha record --dataset d --task t --resume --episodes 4"),
        ("record --episodes=9 --resume --dataset d", 1, "aloha record --resume --dataset d --episodes 1"),
        ("score demo --task t --out o", None, "aloha score demo --task t --out o --resume"),
        ("score demo --resume --out o", None, "aloha score demo --resume --out o"),
    ],
)
def test_the_command_line_that_goes_on(given: str, left: int | None, line: str) -> None:
    assert going_on.again(left, given.split()) == line


def test_words_with_spaces_can_be_typed_as_they_are_shown() -> None:
    argv = ["deploy", "my policy", "--rig", "a b.yaml"]
    assert going_on.again(None, argv, resumes=False) == "aloha deploy 'my policy' --rig 'a b.yaml'"


@pytest.mark.parametrize("error", [ArmsStopped(f"HOLD: {STALL}"), ProcessError("policy gave up", 4)])
def test_an_error_says_how_to_go_on_and_stays_what_it_is(error: AlohaError) -> None:
    code, text = error.exit_code, str(error)
    with pytest.raises(type(error)) as caught, going_on.told(lambda: "to go on: aloha score"):
        raise error
    assert str(caught.value) == f"{text}\nto go on: aloha score"
    assert caught.value.exit_code == code


def test_a_shutdown_by_the_operator_is_not_advised_against() -> None:
    with pytest.raises(ShutDown, match=r"^on request$"), going_on.told(lambda: "never"):
        raise ShutDown("on request")


@pytest.mark.parametrize(
    ("processes", "then"),
    [(["policy"], ", then `aloha start policy`;"), (["teleop"], ", then squeeze both leader grippers;"), ([], ";")],
)
def test_what_to_type_in_another_terminal(processes: list[str], then: str) -> None:
    said = going_on.advice(ModeHeartbeat(stamp_ns=0, mode=Mode.HOLD, cause=STALL), processes, default_run_dir())
    assert said.startswith(f"HOLD: {STALL}\nto go on: `aloha arm` in another terminal{then}")
    fault = ModeHeartbeat(stamp_ns=0, mode=Mode.FAULT, cause="left elbow: overload")
    other = going_on.advice(fault, processes, Path("/tmp/a b"))
    assert "when its cause is gone: `aloha arm --run-dir '/tmp/a b'`" in other


@pytest.mark.parametrize(
    ("mode", "cause", "refused"),
    [
        (Mode.HOLD, STALL, True),
        (Mode.FAULT, "left elbow: overload", True),
        (Mode.HOLD, "stop by operator", False),
        (Mode.HOLD, "routine stop by operator", False),
        (Mode.HOLD, "the policy has moved the arms for its time of 9 s (--max-duration)", False),
        (Mode.TELEOP, "teleop by operator", False),
    ],
)
def test_arms_that_stopped_by_themselves_end_a_session(mode: Mode, cause: str, refused: bool) -> None:
    heartbeat = ModeHeartbeat(stamp_ns=0, mode=mode, cause=cause)
    stack: Any = SimpleNamespace(mode=SimpleNamespace(latest=lambda: heartbeat))
    if not refused:
        operate.refuse_stopped(stack)
        return
    with pytest.raises(ArmsStopped, match=mode.upper()):
        operate.refuse_stopped(stack)
