"""A run directory with a rig in it, as a running stack leaves it for others to find, and a person at a terminal."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from made_up import RIG

from aloha_runtime.bus import Bus
from aloha_runtime.realtime import WallClock
from aloha_runtime.run_directory import RunDirectory


@pytest.fixture
def run_dir() -> Iterator[Path]:
    parent = Path(tempfile.mkdtemp(prefix="aloha-test-"))
    directory = RunDirectory(parent / "run")
    (directory.path / "rig.yaml").write_text(yaml.safe_dump(RIG.model_dump(mode="json")))
    yield directory.path
    directory.cleanup()
    shutil.rmtree(parent)


@pytest.fixture
def bus(run_dir: Path) -> Iterator[Bus]:
    with Bus(run_dir, WallClock()) as opened:
        yield opened


@pytest.fixture
def hands(monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    """The person's end of the terminal that stdin is."""
    master, slave = os.openpty()
    with open(slave) as terminal:
        monkeypatch.setattr("sys.stdin", terminal)
        yield master
    os.close(master)
