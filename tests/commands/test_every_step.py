"""Whatever fails in a command, at whatever step: the arms are parked or were told to stop, no take is left open, none
becomes an episode that nobody has ended, and nothing that was opened stays open."""

import functools
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from fake_rig import FakeRig, Step, Tripwire, in_place

from aloha_runtime import config
from aloha_runtime.commands import operate, preflight, preflight_live, record, replay, score, shadow
from aloha_runtime.commands.deploy import deploy
from aloha_runtime.config import DeployConfig
from aloha_runtime.control.take import Phase
from aloha_runtime.errors import AlohaError
from aloha_runtime.messages import MS, Mode

STACKS_OWN = {"followers", "leaders", "mode", "requests to the supervisor"}


@dataclass(frozen=True)
class Command:
    """A command on the made-up rig."""

    run: Callable[[Path], object]
    led: bool = False
    orders: tuple[str, ...] = ()
    policy_for_ns: int | None = None


def recorded(folder: Path, **wishes: object) -> None:
    asked = record.Wishes(folder / "dataset", "whatever", **({"episodes": 2} | wishes))  # type: ignore[arg-type]
    record.record(asked, "sim", None, folder / "run")


def deployed(folder: Path, **wishes: object) -> None:
    shadows = bool(wishes.get("teleoperated"))
    care = DeployConfig(max_duration_s=0.4 if shadows else None, shadow=shadows)
    deploy("sim", "demo", seed=1, task=None, run_dir=folder / "run", care=care, out=folder / "out", **wishes)


def teleoperated(folder: Path) -> None:
    operate.teleop("sim", scripted=False, seed=1, task=None, seconds=0.4, run_dir=folder / "run")


def scored(folder: Path) -> None:
    score.score(score.Wishes(("a", "b"), 1, "whatever", folder / "out", 60.0), "sim", folder / "run")


def replayed(folder: Path) -> None:
    replay.replay(folder, 0, "sim", folder / "out", 1, None, folder / "run")


COMMANDS = {
    "record": Command(recorded, led=True, orders=("success", "pause", "pause", "success")),
    "record --scripted": Command(lambda folder: recorded(folder, scripted=True), led=True),
    "record --policy": Command(lambda folder: recorded(folder, policy="demo"), orders=("success", "failure")),
    "record --policy --takeover --scripted": Command(
        lambda folder: recorded(folder, policy="demo", takeover=True, scripted=True, episodes=1)
    ),
    "record, quit": Command(recorded, led=True, orders=("quit",)),
    "deploy": Command(deployed, policy_for_ns=400 * MS),
    "deploy --shadow --teleop": Command(lambda folder: deployed(folder, teleoperated=True), led=True),
    "teleop": Command(teleoperated, led=True),
    "replay": Command(replayed),
    "score": Command(scored, orders=("next", "success", "next", "discard", "next", "stop", "failure")),
}
ERRORS: dict[str, Callable[[], BaseException]] = {
    "exception": lambda: RuntimeError("a mistake"),
    "error": lambda: AlohaError("something is wrong"),
    "Ctrl-C": KeyboardInterrupt,
}


class FakePreflight:
    """Finds nothing, but looks at cameras and arms as the real one does."""

    def __init__(self, *_: object) -> None:
        pass

    def files(self) -> None:
        pass

    show = refuse = lambda *_, **__: None

    def value(self, *checks: str) -> str:
        return ""

    def live(self, stack: operate.Stack, out: Path, at_start: bool) -> None:
        preflight_live.look(stack, ["cam_high"])
        preflight_live._rates_hz(stack, ["cam_high"])


class FakeObserver:
    """Sees what the rig says of itself."""

    def __init__(self, stack: operate.Stack) -> None:
        self.rig = stack.clock

    def latest(self, topic: object) -> object:
        return self.rig.message(topic)  # type: ignore[attr-defined]

    mark = log = lambda self: self.rig.wire("observer", self.rig)  # type: ignore[attr-defined]

    def __enter__(self) -> "FakeObserver":
        return self

    def __exit__(self, *_: object) -> None:
        pass


@pytest.fixture(autouse=True)
def _no_files(monkeypatch: pytest.MonkeyPatch) -> None:
    """What commands read and write besides moving arms."""
    nothing = lambda *_, **__: None  # noqa: E731
    for module in (record, score):
        monkeypatch.setattr(module, "NEXT_TIMEOUT_S", 10.0)
    monkeypatch.setattr(operate, "SQUEEZE_TIMEOUT_S", 10.0)
    monkeypatch.setattr(config, "load", functools.cache(config.load))
    monkeypatch.setattr(record, "open_dataset", lambda wishes, rig: 0)
    monkeypatch.setattr(record, "refuse_full_disk", nothing)
    monkeypatch.setattr(record, "Dataset", lambda path: SimpleNamespace(episodes=[]))
    monkeypatch.setattr("aloha_runtime.commands.deploy.refuse_unfit", nothing)
    monkeypatch.setattr(preflight, "Preflight", FakePreflight)
    monkeypatch.setattr(preflight_live, "PATIENCE_S", 0.1)
    monkeypatch.setattr(preflight_live, "RATE_SPAN_S", 0.1)
    episode = SimpleNamespace(actions=np.zeros((10, 14)), fps=50, task="whatever.")
    monkeypatch.setattr(replay, "recording", SimpleNamespace(load=lambda *_: episode))
    monkeypatch.setattr(replay, "Observer", FakeObserver)
    for name in ("compare", "_curves", "draw"):
        monkeypatch.setattr(replay, name, nothing)
    monkeypatch.setattr(replay, "_figures", lambda *_: {})
    monkeypatch.setattr(replay, "_table", lambda *_: "")
    monkeypatch.setattr(score, "refuse_unfit", nothing)
    monkeypatch.setattr(score.score_page, "page", lambda *_: "")
    monkeypatch.setattr(shadow, "_write", nothing)


def ran(command: Command, wire: Tripwire, folder: Path, patch: pytest.MonkeyPatch) -> tuple[FakeRig, str]:
    """The rig after a command, and what it ended with."""
    folder.mkdir()
    rig = FakeRig(wire, command.led, command.orders, command.policy_for_ns)
    ended = ""
    with in_place(rig, patch):
        try:
            command.run(folder)
        except BaseException as error:
            ended = repr(error)
    wire.target = None
    rig.pass_until(rig.now + 100 * MS)
    return rig, ended


def complaint(rig: FakeRig, raised: BaseException | None, step: Step = ()) -> str:
    """What is wrong with how a command has left the rig; empty when nothing is."""
    parking = any(line.startswith("parking.py:") for line in step)
    mode = rig.machine.mode
    skipped = parking and isinstance(raised, KeyboardInterrupt)
    if mode is not Mode.IDLE and not (skipped and mode is Mode.HOLD):
        return f"the arms are left in {mode}"
    if rig.take.phase is Phase.TAKING:
        return "a take is left open"
    unended = [episode.cause for episode in rig.episodes if not episode.outcome]
    if unended and not isinstance(raised, KeyboardInterrupt) and not rig.quits:  # Ctrl-C and `q` end a take like STOP
        return f"an episode that nobody ended: {unended}"
    if step and step[0].startswith(("subscribe", "client")):
        return ""  # of two that a constructor opens, the bus closes the first
    left = [name for name in rig.left_open if name not in STACKS_OWN and not name.startswith("health.")]
    return f"left open: {left}" if left else ""


@pytest.mark.timeout(600)
@pytest.mark.parametrize("name", COMMANDS)
def test_a_failure_at_any_step_stops_the_arms(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    command = COMMANDS[name]
    first = Tripwire()
    rig, ended = ran(command, first, tmp_path / "first", monkeypatch)
    assert complaint(rig, None) == ""
    assert ended in ("", "AlohaError('demo predicted nothing: it was stopped before its first tick')")
    assert len(first.steps) > 30, "too few steps to mean anything"
    if "record" in name and "quit" not in name:
        assert rig.episodes, "it recorded"
    wrong = []
    for number, step in enumerate(first.steps):
        for kind, error in ERRORS.items():
            raised = error()
            rig, ended = ran(command, Tripwire(step, raised), tmp_path / f"{number} {kind}", monkeypatch)
            capsys.readouterr()
            if found := complaint(rig, raised, step):
                wrong.append(f"{kind} at {step}: {found} ({ended})")
    assert wrong == []
