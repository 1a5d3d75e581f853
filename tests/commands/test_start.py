"""`aloha start` asks what `aloha deploy` asks, and refuses in its words before the supervisor is asked anything."""

import json
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import yaml
from rich.console import Console

from aloha_runtime import config, messages
from aloha_runtime.bus import Bus
from aloha_runtime.commands import preflight_live
from aloha_runtime.commands.preflight import Preflight
from aloha_runtime.commands.preflight_live import Look
from aloha_runtime.commands.start import start_policy
from aloha_runtime.config import RigConfig
from aloha_runtime.errors import AlohaError, CheckpointError
from aloha_runtime.messages import Health, Mode, ModeHeartbeat, Reply, Request
from aloha_runtime.realtime import WallClock
from aloha_runtime.robot import START_POSE, pose_vector
from aloha_runtime.run_directory import RIG_FILE, RunDirectory

RIG = config.load("sim")


@pytest.fixture
def silent_about_its_rate(tmp_path: Path) -> Path:
    """A checkpoint that does not say at which rate it was trained, as LeRobot's do not."""
    path = tmp_path / "checkpoint"
    shutil.copytree(config.policy_path("demo"), path)
    origin = json.loads((path / "provenance.json").read_text())
    del origin["dataset"]["fps"]
    (path / "provenance.json").write_text(json.dumps(origin))
    return path


@dataclass
class Service:
    """What somebody else has started: a supervisor and a policy, as far as a command hears them."""

    run_dir: Path
    requests: list[Request] = field(default_factory=list)


@contextmanager
def running(folder: Path, checkpoint: str, mode: Mode = Mode.ARMED, rig: RigConfig = RIG) -> Iterator[Service]:
    with RunDirectory(folder) as directory:
        service = Service(folder)
        (folder / RIG_FILE).write_text(yaml.safe_dump(rig.model_dump(mode="json")))
        over = threading.Event()
        thread = threading.Thread(target=_speak, args=(service, checkpoint, mode, over))
        thread.start()
        try:
            yield service
        finally:
            over.set()
            thread.join()
            (folder / RIG_FILE).unlink()
        assert directory is not None


def _speak(service: Service, checkpoint: str, mode: Mode, over: threading.Event) -> None:
    clock = WallClock()
    with Bus(service.run_dir, clock) as bus:
        heartbeat, health, server = (
            bus.publisher(messages.MODE),
            bus.publisher(messages.health_topic("policy")),
            bus.server(),
        )
        while not over.wait(0.02):
            now_ns = clock.now_ns()
            heartbeat.send(ModeHeartbeat(stamp_ns=now_ns, mode=mode))
            if checkpoint:
                health.send(Health(stamp_ns=now_ns, process="policy", pid=1, subject=checkpoint))
            while (request := server.receive()) is not None:
                service.requests.append(request)
                server.reply(Reply(ok=True, text="policy", mode=Mode.POLICY))


def words_of_deploy(checkpoint: Path) -> str:
    flight = Preflight(str(checkpoint), RIG, (), Console(quiet=True))
    flight.files()
    with pytest.raises(CheckpointError) as caught:
        flight.refuse()
    return str(caught.value)


@pytest.fixture
def run_dir(tmp_path: Path) -> Path:
    return tmp_path / "run"


def test_a_service_refuses_what_deploy_refuses_in_its_words(
    silent_about_its_rate: Path, run_dir: Path, tmp_path: Path
) -> None:
    with running(run_dir, str(silent_about_its_rate)) as service, pytest.raises(CheckpointError) as caught:
        start_policy(run_dir, (), tmp_path)
    assert str(caught.value) == words_of_deploy(silent_about_its_rate)
    assert "--accept rate" in str(caught.value)
    assert service.requests == []


def look_that_finds(monkeypatch: pytest.MonkeyPatch, seen: Look) -> None:
    monkeypatch.setattr(preflight_live, "look", lambda *_: seen)


def test_what_a_person_has_judged_is_started(
    silent_about_its_rate: Path, run_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    look_that_finds(monkeypatch, Look(pose_vector(START_POSE, 0.0), {}))
    with running(run_dir, str(silent_about_its_rate)) as service:
        start_policy(run_dir, ("rate",), tmp_path)
    assert [request.verb for request in service.requests] == ["policy"]
    assert "cameras" in (tmp_path / "preflight.html").read_text()


def test_what_cameras_and_arms_show_now_is_looked_at_as_well(
    run_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    look_that_finds(monkeypatch, Look(None, {}, "cam_high: newest frame is 240 ms old"))
    with (
        running(run_dir, "demo") as service,
        pytest.raises(CheckpointError, match=r"observation: there was none .* cam_high: newest frame is 240 ms old"),
    ):
        start_policy(run_dir, (), tmp_path)
    assert service.requests == []


def test_arms_that_are_not_armed_are_named_and_nobody_is_asked(run_dir: Path, tmp_path: Path) -> None:
    with (
        running(run_dir, "demo", Mode.HOLD) as service,
        pytest.raises(AlohaError, match="hold: policy is not possible in hold; arm first"),
    ):
        start_policy(run_dir, (), tmp_path)
    assert service.requests == []


def test_a_system_without_a_policy_says_how_to_get_one(
    run_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("aloha_runtime.commands.start.HEARD_WITHIN_S", 0.3)
    with running(run_dir, "") as service, pytest.raises(AlohaError, match=r"a policy is not heard .*--job deploy"):
        start_policy(run_dir, (), tmp_path)
    assert service.requests == []
    with pytest.raises(AlohaError, match=r"nothing runs there; .*aloha up"):
        start_policy(run_dir, (), tmp_path)
