"""`aloha record` from its command line to the dataset, and the orders of hands that are busy."""

import contextlib
import os
import pty
import shutil
import struct
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml

from aloha_runtime import config
from aloha_runtime.commands import record as command
from aloha_runtime.commands.orders import Orders
from aloha_runtime.commands.record import RecordingSession, Wishes, record
from aloha_runtime.config import RecordingConfig
from aloha_runtime.data import Dataset, recorded, reports
from aloha_runtime.errors import AlohaError, ArmsStopped, ConfigError, DatasetError, ProcessError
from aloha_runtime.messages import Mode, ModeHeartbeat, Reply, Request


@pytest.fixture
def rig_file(tmp_path: Path) -> Path:
    """The simulated rig in virtual time, no voice."""
    plain = config.load("sim").model_dump(mode="json")
    plain["sim"]["clock"] = "virtual"
    plain["recording"]["cue"] = "off"
    path = tmp_path / "rig.yaml"
    path.write_text(yaml.safe_dump(plain))
    return path


def wishes(dataset: Path, **more) -> Wishes:
    return Wishes(dataset, "hand the cube over", **({"episodes": 1, "scripted": True, "seed": 3} | more))


@pytest.mark.long
@pytest.mark.timeout(600)
def test_a_scripted_demonstration_is_recorded_and_continued_only_by_the_same_rig(
    tmp_path: Path, rig_file: Path
) -> None:
    dataset = tmp_path / "dataset"
    record(wishes(dataset), str(rig_file), None, tmp_path / "run")
    (episode,) = Dataset(dataset).episodes
    assert episode.tasks == ("hand the cube over",)
    assert 200 < episode.length < 350
    assert reports.read(dataset, 0)["outcome"] == "success"
    # The script takes up leaders that have sagged all at once, which a person does not.
    flags = [flag for flag in reports.read(dataset, 0)["flags"] if not flag.startswith("targets clipped in 5%")]
    assert flags == []

    with pytest.raises(DatasetError, match="--resume"):
        record(wishes(dataset), str(rig_file), None, tmp_path / "run")
    plain = yaml.safe_load(rig_file.read_text())
    plain["cameras"]["cam_high"]["width"] = 320
    plain["limits"]["lead_rad"] = 0.05
    rig_file.write_text(yaml.safe_dump(plain))
    with pytest.raises(DatasetError) as error:
        record(wishes(dataset, resume=True), str(rig_file), None, tmp_path / "run")
    assert "cameras.cam_high.width was 160, is 320" in str(error.value)
    assert "limits.lead_rad was None, is 0.05" in str(error.value)


def test_arms_that_stopped_by_themselves_end_the_session_and_are_not_raised_again(tmp_path: Path) -> None:
    """The supervisor's HOLD is left by an operator, not by the next episode."""
    asked: list[str] = []
    cause = "this computer stood still for 140 ms; close other programs"
    stack: Any = SimpleNamespace(
        rig=config.load("sim"),
        bus=SimpleNamespace(subscribe=lambda topic: None, client=lambda name: None),
        mode=SimpleNamespace(latest=lambda: ModeHeartbeat(stamp_ns=1, mode=Mode.HOLD, cause=cause)),
        say=lambda text: None,
        ask=lambda verb, argument="": asked.append(verb),
    )
    orders: Any = SimpleNamespace(has_keyboard=False, take=list)
    with pytest.raises(ArmsStopped, match="HOLD: this computer stood still for 140 ms"):
        RecordingSession(stack, wishes(tmp_path), None, orders).run()  # type: ignore[arg-type]
    assert asked == []


@pytest.mark.parametrize(
    ("error", "asked"),
    [
        (RuntimeError("a mistake"), ["discard"]),
        (AlohaError("something is wrong"), ["discard"]),
        (ProcessError("policy has ended", 1), []),  # the arms stop for it, and the take ends with that
        (KeyboardInterrupt(), []),
    ],
)
def test_a_take_that_nobody_ended_is_thrown_away_when_the_command_fails(
    error: BaseException, asked: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    requests: list[str] = []

    def answer(request: Request, timeout_ms: int = 0) -> Reply:
        requests.append(request.verb)
        return Reply(ok=True, text="")

    def fail(self: RecordingSession) -> None:
        raise error

    monkeypatch.setattr(RecordingSession, "_one", fail)
    bus = SimpleNamespace(subscribe=lambda topic: None, client=lambda name: SimpleNamespace(request=answer))
    stack: Any = SimpleNamespace(rig=config.load("sim"), bus=bus, say=lambda text: None)
    orders: Any = SimpleNamespace(has_keyboard=False, take=list)
    expected = contextlib.nullcontext() if isinstance(error, KeyboardInterrupt) else pytest.raises(type(error))
    with expected:
        RecordingSession(stack, wishes(tmp_path), None, orders).run()  # type: ignore[arg-type]
    assert requests == asked


def test_a_full_disk_is_refused_with_what_fits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recorded.create(tmp_path / "dataset", config.load("sim"))
    few = command.LEAST_FREE_BYTES + 3 * command.EPISODE_BYTES
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(few, 0, few))
    command.refuse_full_disk(tmp_path / "dataset", 0, 3)
    with pytest.raises(DatasetError, match="room for 3 episodes of 25 MB, 50 are wanted"):
        command.refuse_full_disk(tmp_path / "dataset", 0, 50)


def test_a_dataset_of_unknown_rig_is_not_continued(tmp_path: Path) -> None:
    rig = config.load("sim")
    recorded.create(tmp_path / "dataset", rig)
    recorded.refuse_other_rig(tmp_path / "dataset", rig)
    (tmp_path / "dataset" / reports.RIG_PATH).unlink()
    with pytest.raises(DatasetError, match="does not say which rig"):
        recorded.refuse_other_rig(tmp_path / "dataset", rig)


def test_a_robot_pc_needs_no_simulator() -> None:
    """Neither the command nor the recorder brings MuJoCo."""
    code = "import sys; import aloha_runtime.{}; sys.exit('mujoco' in sys.modules)"
    for module in ("commands.record", "processes.recorder", "commands.dataset_view"):
        assert subprocess.run([sys.executable, "-c", code.format(module)], check=False).returncode == 0, module


def test_keys_of_a_terminal_are_orders(monkeypatch: pytest.MonkeyPatch) -> None:
    ours, theirs = pty.openpty()
    with os.fdopen(theirs) as terminal, Orders(RecordingConfig(), print) as outside:
        assert outside.take() == []
        monkeypatch.setattr(sys, "stdin", terminal)
        with Orders(RecordingConfig(), print) as orders:
            assert orders.has_keyboard
            assert orders.take() == []
            os.write(ours, b"sx\x7fq")
            assert orders.take() == ["success", "discard", "quit"]
    os.close(ours)


def pressed(code: int, value: int = 1, kind: int = 1) -> bytes:
    """One event as the kernel hands it out."""
    return struct.pack("llHHi", 0, 0, kind, code, value)


def test_a_pedal_is_read_and_may_disappear(tmp_path: Path) -> None:
    pedal = tmp_path / "event7"
    os.mkfifo(pedal)
    keeps_open = os.open(pedal, os.O_RDWR)
    with Orders(RecordingConfig(pedal=str(pedal)), print) as orders:
        assert orders.take() == []
        os.write(keeps_open, pressed(30) + pressed(30, value=0) + pressed(4, kind=4) + pressed(48) + pressed(99))
        assert orders.take() == ["success", "discard"]
        os.close(keeps_open)
        assert orders.take() == []


def test_a_pedal_that_is_not_there_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"recording.pedal: .*event7 does not exist; plug it in"):
        Orders(RecordingConfig(pedal=str(tmp_path / "event7")), print)
