"""The metrics process over its own socket: what it says of a rig that is well, in trouble, silent."""

import http.client
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
import yaml

from aloha_runtime import config, messages
from aloha_runtime.bus import Bus
from aloha_runtime.messages import Health, Mode, ModeHeartbeat
from aloha_runtime.processes.table import listening
from aloha_runtime.realtime import WallClock
from aloha_runtime.run_directory import RunDirectory

PATIENCE_S = 60


@pytest.fixture
def bus(tmp_path: Path) -> Iterator[Bus]:
    with RunDirectory(tmp_path / "run") as directory, Bus(directory.path, WallClock()) as opened:
        yield opened


def get(port: int, path: str) -> tuple[int, str]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    connection.request("GET", path)
    answer = connection.getresponse()
    return answer.status, answer.read().decode()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def test_what_is_said_of_a_rig_and_who_listens(bus: Bus, tmp_path: Path) -> None:
    port = free_port()
    data = yaml.safe_load(config.find("sim").read_text())
    rig_file = tmp_path / "rig.yaml"
    rig_file.write_text(yaml.safe_dump({**data, "metrics_port": port}))
    names = ("supervisor", "arms@followers")
    health = {name: bus.publisher(messages.health_topic(name)) for name in names}
    mode = bus.publisher(messages.MODE)
    command = [
        "-m",
        "aloha_runtime.processes.metrics",
        "metrics",
        "--rig",
        str(rig_file),
        "--run-dir",
        str(bus.run_dir),
    ]
    child = subprocess.Popen([sys.executable, *command])

    def say(message: str, said: Mode) -> None:
        now = time.monotonic_ns()
        mode.send(ModeHeartbeat(stamp_ns=now, mode=said, cause="servo 3"))
        for name in names:
            figures = {"lateness_p99_ms": 0.25, "gate_held-back": 7.0}
            ok = not (message and name == "arms@followers")
            report = Health(stamp_ns=now, process=name, pid=os.getpid(), ok=ok, message=message, figures=figures)
            health[name].send(report)

    def until(path: str, wanted: int, message: str = "", said: Mode | None = Mode.IDLE) -> str:
        """Say it until the page has that status."""
        give_up = time.monotonic() + PATIENCE_S
        while time.monotonic() < give_up:
            if said is not None:
                say(message, said)
            try:
                status, text = get(port, path)
            except OSError:  # it is not up yet
                status, text = 0, ""
            if status == wanted:
                return text
            time.sleep(0.05)
        raise AssertionError(f"{path} never was {wanted}: {status} {text}")

    try:
        assert until("/readyz", 200) == "ok\n"
        assert until("/healthz", 200) == "ok\n"
        text = until("/metrics", 200)
        assert 'aloha_process_ok{process="arms@followers"} 1\n' in text
        assert 'aloha_lateness_p99_ms{process="supervisor"} 0.25\n' in text
        assert 'aloha_gate_held_back{process="arms@followers"} 7\n' in text
        assert 'aloha_mode{mode="idle"} 1\n' in text
        assert until("/", 404)
        assert until("/readyz", 503, message="leader torn off") == "arms@followers: leader torn off\n"
        assert until("/readyz", 200)
        assert "fault: servo 3" in until("/readyz", 503, said=Mode.FAULT)
        assert until("/readyz", 200)
        assert "supervisor is silent" in until("/healthz", 503, said=None)
        sockets = [c.laddr for c in psutil.Process(child.pid).net_connections("inet") if c.status == psutil.CONN_LISTEN]
        assert [(where.ip, where.port) for where in sockets] == [("127.0.0.1", port)], "this machine alone is answered"
        assert list(listening(config.load(str(rig_file))).values()) == [("127.0.0.1", port)]
    finally:
        child.terminate()
        assert child.wait(60) == 0


def test_a_rig_without_a_port_listens_nowhere() -> None:
    assert listening(config.load("aloha")) == {}
