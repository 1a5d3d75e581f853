"""A run directory with a rig in it, as a running stack leaves it for others to find."""

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
