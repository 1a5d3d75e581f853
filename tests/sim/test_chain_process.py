"""chain@ARM as a process of the rig: its terminal, its place in the world, its end, its refusals."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import dynamixel_sdk as dxl
import pytest
import yaml

from aloha_runtime.config import CONFIG_DIR
from aloha_runtime.robot import START_POSE, rad_to_ticks, ticks_to_rad
from aloha_runtime.sim.chain_control import GetReport, Peek, RaiseError, Unplug, ask
from aloha_runtime.sim.link import Link
from aloha_runtime.time_server import TimeServer

POSE = (*START_POSE, 0.2)
PATIENCE_S = 60


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """The SDK waits 34 ms at least; on a busy machine the chain's process may not run for longer."""
    monkeypatch.setattr("dynamixel_sdk.port_handler.LATENCY_TIMER", 300)


class Rig:
    """A run directory, a stand-in for the world with both followers at POSE, and chains started on request."""

    def __init__(self, run_dir: Path) -> None:
        self.run_dir = run_dir
        run_dir.chmod(0o700)
        self.world = Link.create(run_dir)
        for arm in ("follower_left", "follower_right"):
            self.world.write_present(arm, POSE, [0.0] * 7, [0.0] * 7)
        self._started: list[subprocess.Popen[str]] = []

    def start(self, *arms: str, rig: str = "sim") -> list[subprocess.Popen[str]]:
        processes = [start(self.run_dir, arm, rig) for arm in arms]
        self._started += processes
        return processes

    def close(self) -> None:
        for process in self._started:
            process.kill()
            process.communicate()
        self.world.close()


def start(run_dir: Path, arm: str, rig: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "aloha_runtime.processes.chain", f"chain@{arm}", "--rig", rig]
    return subprocess.Popen([*command, "--run-dir", str(run_dir)], stderr=subprocess.PIPE, text=True)


@pytest.fixture(scope="module")
def rig(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    """With follower_left and leader_right running."""
    rig = Rig(tmp_path_factory.mktemp("rig"))
    rig.start("follower_left", "leader_right")
    for arm in ("follower_left", "leader_right"):
        assert until((rig.run_dir / f"ttyDXL_{arm}").exists)
    yield rig
    rig.close()


def until(condition: Callable[[], bool]) -> bool:
    give_up = time.monotonic() + PATIENCE_S
    while not condition():
        if time.monotonic() > give_up:
            return False
        time.sleep(0.01)
    return True


def opened(run_dir: Path, arm: str) -> tuple[dxl.PortHandler, dxl.PacketHandler]:
    port = dxl.PortHandler(str(run_dir / f"ttyDXL_{arm}"))
    assert port.openPort()
    return port, dxl.PacketHandler(2.0)


def test_a_follower_reads_and_commands_the_world(rig: Rig) -> None:
    port, packet = opened(rig.run_dir, "follower_left")
    tick, result, _ = packet.read4ByteTxRx(port, 9, 132)
    assert (tick, result) == (rad_to_ticks(0.2), dxl.COMM_SUCCESS)
    assert packet.write1ByteTxRx(port, 9, 64, 1) == (dxl.COMM_SUCCESS, 0)
    assert packet.write4ByteTxRx(port, 9, 116, tick + 100) == (dxl.COMM_SUCCESS, 0)
    goals, torque, _ = rig.world.read_command("follower_left")
    assert list(torque) == [False] * 6 + [True]
    assert goals[6] == pytest.approx(ticks_to_rad(tick + 100))
    report = ask(rig.run_dir, "follower_left", GetReport()).report
    assert report is not None
    assert report.goals == 1
    port.closePort()


def test_a_leader_follows_the_hand_of_the_demonstrator(rig: Rig) -> None:
    rig.world.write_hand("leader_right", [0.3, -0.5, 0.8, 0.1, 0.2, -0.1, -0.4])
    assert until(lambda: waist(rig, "leader_right") == rad_to_ticks(0.3))


def test_a_second_chain_of_the_same_arm_is_refused(rig: Rig) -> None:
    (second,) = rig.start("follower_left")
    _, message = second.communicate(timeout=PATIENCE_S)
    assert second.returncode == 6
    assert "already: pid" in message
    assert ask(rig.run_dir, "follower_left", Peek(1, "ID")).value == 1


def test_an_adapter_pulled_for_a_while_comes_back_by_itself(rig: Rig) -> None:
    ask(rig.run_dir, "follower_left", RaiseError(9, 0x20))
    ask(rig.run_dir, "follower_left", Unplug(0.3))
    assert until((rig.run_dir / "ttyDXL_follower_left").exists)
    port, packet = opened(rig.run_dir, "follower_left")
    assert packet.read1ByteTxRx(port, 9, 70)[0] == 0x20  # the servos kept their power
    port.closePort()


def test_an_arm_that_no_rig_has_is_refused(rig: Rig) -> None:
    (process,) = rig.start("follower_middle")
    _, message = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 7
    assert message.startswith("chain@follower_middle: no arm is named 'follower_middle'")


def test_restarts_and_the_end(tmp_path: Path) -> None:
    """A new world is found; a killed chain starts again over its remains; SIGTERM leaves nothing."""
    rig, link = Rig(tmp_path), tmp_path / "ttyDXL_follower_right"
    (first,) = rig.start("follower_right")
    assert until(link.exists)
    rig.world.close()
    rig.world = Link.create(tmp_path)
    rig.world.write_present("follower_right", [0.5] * 7, [0.0] * 7, [0.0] * 7)
    assert until(lambda: waist(rig, "follower_right") == rad_to_ticks(0.5))

    port, _ = opened(tmp_path, "follower_right")  # keeps the old device in use, so the new one gets another name
    device = os.readlink(link)
    first.kill()
    first.wait()
    assert link.is_symlink()
    (second,) = rig.start("follower_right")
    assert until(lambda: os.readlink(link) != device)
    again, packet = opened(tmp_path, "follower_right")
    assert packet.ping(again, 1)[0] == 1120
    again.closePort()
    port.ser.close()

    second.send_signal(signal.SIGTERM)
    assert second.wait(PATIENCE_S) == 0
    rig.close()
    assert list(tmp_path.iterdir()) == []


def test_in_virtual_time_it_answers_whoever_has_the_turn(tmp_path: Path) -> None:
    """Its clock is the world's: the watchdog trips when that has moved on, however long the test takes."""
    settings = yaml.safe_load((CONFIG_DIR / "sim.yaml").read_text())
    settings["sim"]["clock"] = "virtual"
    (tmp_path / "rig.yaml").write_text(yaml.safe_dump(settings))
    rig, stopping = Rig(tmp_path), threading.Event()
    rig.world.write_clock(10**12)
    server = TimeServer(tmp_path)
    time_goes_on = threading.Thread(target=server.run, args=(stopping.is_set,))
    time_goes_on.start()
    (process,) = rig.start("follower_left", rig=str(tmp_path / "rig.yaml"))
    try:
        assert until((tmp_path / "ttyDXL_follower_left").exists)
        port, packet = opened(tmp_path, "follower_left")
        assert packet.write1ByteTxRx(port, 6, 64, 1) == (dxl.COMM_SUCCESS, 0)
        assert packet.write1ByteTxRx(port, 6, 98, 1) == (dxl.COMM_SUCCESS, 0)
        for _ in range(5):
            assert packet.read1ByteTxRx(port, 6, 98) == (1, dxl.COMM_SUCCESS, 0)
        rig.world.write_clock(10**12 + 21_000_000)
        assert packet.read1ByteTxRx(port, 6, 98) == (255, dxl.COMM_SUCCESS, 0)
        port.closePort()
        process.send_signal(signal.SIGTERM)
        assert process.wait(PATIENCE_S) == 0
    finally:
        stopping.set()
        time_goes_on.join()
        server.close()
        rig.close()


def waist(rig: Rig, arm: str) -> int:
    return ask(rig.run_dir, arm, Peek(1, "Present_Position")).value
