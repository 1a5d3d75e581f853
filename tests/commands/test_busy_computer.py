"""When `aloha demo` blames the computer, and what it does then."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import made_up
import pytest

from aloha_runtime.commands import busy_computer, demo, report
from aloha_runtime.commands.figures import figures
from aloha_runtime.commands.observe import Log
from aloha_runtime.errors import AlohaError, ArmsStopped, ProcessError, TransportError
from aloha_runtime.messages import Mode
from aloha_runtime.stillness import stood_still

STALL = stood_still(140_000_000)
NOT_UP = "policy did not report within 60 s of starting"
LATE = "policy: only 78% of the last 100 ticks were on time; see what else runs on this machine"
IN_VAIN = (
    "arms@followers: the supervisor is silent; see whether it runs, then arm again",
    "guard has been silent for 520 ms; see its log, then arm again",
    "policy: camera cam_high: the newest frame is 160 ms old",
    "arms@followers: follower_left: no servo answers for 142 ms; check its power and USB",
    "the supervisor (pid 7) did not answer 'arm' within 2000 ms",
    "the ramp of all arms to the start pose did not happen within 40 s",
)
DEFECTS = (
    "arms@followers: left elbow: overload",
    "guard: left gripper comes within 4 mm of table",
    "3 actions in a row were refused, the last because left_waist is nan",
)


def test_a_stall_and_late_ticks_are_the_computers_and_a_silence_is_where_ordinary_work_was_kept_waiting() -> None:
    for cause in (STALL, LATE, NOT_UP):
        assert busy_computer.excuses(cause, 0.0)
    for cause in IN_VAIN:
        assert busy_computer.excuses(cause, busy_computer.BUSY_SHARE), cause
        assert not busy_computer.excuses(cause, 0.0), cause
    for cause in DEFECTS:
        assert not busy_computer.excuses(cause, 1.0), cause


def test_a_process_that_gave_up_is_a_defect_whatever_it_says() -> None:
    assert busy_computer.excuses_error(ArmsStopped(f"HOLD: {STALL}"), 0.0)
    assert busy_computer.excuses_error(TransportError(IN_VAIN[4]), 0.5)
    assert not busy_computer.excuses_error(ProcessError(f"policy gave up: {IN_VAIN[3]}", 4), 1.0)


def test_an_ordinary_loop_knows_how_long_it_was_kept_waiting() -> None:
    watch = busy_computer.Watch()
    for now in (1, 11, 21, 321, 331):
        watch._stillness.turn("ordinary loop", now * 1_000_000, busy_computer.LATE_NS)
    assert watch.lost_share(331_000_000) == pytest.approx(0.3e9 / busy_computer.LOOKS_BACK_NS)
    with busy_computer.Watch():
        pass


def log_of(clock: str, cause: str = "", ticks: int = 100) -> Log:
    """A short demonstration, at the end of which the arms may have stopped."""
    made = made_up.demonstrated(ticks=ticks)
    beats = list(made.messages["mode"])
    if cause:
        beats += made_up.heartbeats(Mode.HOLD, 2, beats[-1].stamp_ns + 20_000_000)
        beats[-1].cause = beats[-2].cause = cause
    rig = made.rig.model_copy(update={"sim": made.rig.sim.model_copy(update={"clock": clock})})
    return Log(rig, "demo", made.start_ns, made.end_ns, {**made.messages, "mode": beats}, made.flows, made.usage)


class Runs:
    """In place of the stack: what each run comes to, a log or an error."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *outcomes: Log | AlohaError) -> None:
        self.outcomes, self.clocks, self.seeds = list(outcomes), [], []
        monkeypatch.setattr(demo, "_run", self.run)
        monkeypatch.setattr(report, "render_video", lambda log, path, progress: path.write_bytes(b"video"))

    def run(self, stack: Any, console: object) -> Log:
        self.clocks.append(stack.rig.sim.clock)
        self.seeds.append((stack.rig.sim.seed, stack.checkpoint))
        outcome = self.outcomes.pop(0)
        if isinstance(outcome, AlohaError):
            raise outcome
        return outcome


def figures_of(out: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((out / "report.json").read_text())
    return found


@pytest.mark.parametrize("first", [log_of("wall", STALL), log_of("wall", LATE), ArmsStopped(f"HOLD: {STALL}")])
def test_the_same_episode_is_run_again_in_virtual_time_and_the_report_says_so(
    first: Log | AlohaError, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    runs = Runs(monkeypatch, first, log_of("virtual"))
    demo.demo(None, "demo", tmp_path / "out", tmp_path / "run")
    assert runs.clocks == ["wall", "virtual"]
    assert runs.seeds[0] == runs.seeds[1]
    found = figures_of(tmp_path / "out")
    assert found["clock"] == "virtual"
    assert "140 ms" in found["too_busy_for_real_time"] or "78%" in found["too_busy_for_real_time"]
    warning = "This episode ran in virtual time, because this computer was too busy for real time"
    assert warning in (tmp_path / "out" / "report.html").read_text()
    said = " ".join(capsys.readouterr().out.replace("│", "").split())
    assert "this computer is too busy for real time" in said
    assert warning in said


def test_on_a_quiet_computer_it_runs_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    runs = Runs(monkeypatch, log_of("wall"))
    demo.demo(3, "demo", tmp_path / "out", tmp_path / "run")
    assert runs.clocks == ["wall"]
    assert figures_of(tmp_path / "out")["too_busy_for_real_time"] == ""
    assert "virtual time" not in (tmp_path / "out" / "report.html").read_text()


@pytest.mark.parametrize(
    ("outcomes", "runs"),
    [
        ([log_of("wall", DEFECTS[0])], 1),
        ([ArmsStopped(f"FAULT: {DEFECTS[0]}")], 1),
        ([ProcessError("policy gave up: it is broken", 4)], 1),
        ([log_of("wall", STALL), log_of("virtual", DEFECTS[1])], 2),
        ([log_of("wall", STALL), ArmsStopped(f"HOLD: {DEFECTS[2]}")], 2),
    ],
)
def test_a_defect_fails_in_either_time(
    outcomes: list[Log | AlohaError], runs: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = Runs(monkeypatch, *outcomes)
    monkeypatch.setattr(demo, "_report", lambda log, *_: SimpleNamespace(figures=figures(log)))
    monkeypatch.setattr(report, "print_summary", lambda written, console: None)
    with pytest.raises(AlohaError):
        demo.demo(3, "demo", tmp_path / "out", tmp_path / "run")
    assert len(made.clocks) == runs
