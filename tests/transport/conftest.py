"""A run directory of its own for each test, with a path short enough for sockets; nothing may be left of it."""

import multiprocessing
import shutil
import tempfile
from collections.abc import Callable, Iterator
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import pytest

from aloha_runtime.bus import Bus
from aloha_runtime.realtime import WallClock
from aloha_runtime.run_directory import SHARED_MEMORY, RunDirectory, ring_prefix


@pytest.fixture
def run_dir() -> Iterator[Path]:
    parent = Path(tempfile.mkdtemp(prefix="aloha-test-"))
    directory = RunDirectory(parent / "run")
    prefix = ring_prefix(directory.path)
    yield directory.path
    directory.cleanup()
    left = [*parent.rglob("*"), *SHARED_MEMORY.glob(f"{prefix}*")]
    shutil.rmtree(parent)
    assert [path.name for path in left if path != directory.path] == []


@pytest.fixture
def planted() -> Iterator[Callable[[str], Path]]:
    """Paths in shared memory for what somebody puts there; removed at the end."""
    made: list[Path] = []

    def path(name: str) -> Path:
        made.append(SHARED_MEMORY / name)
        return made[-1]

    yield path
    for each in made:
        if each.is_dir() and not each.is_symlink():
            each.rmdir()
        else:
            each.unlink(missing_ok=True)


@pytest.fixture
def bus(run_dir: Path) -> Iterator[Bus]:
    with Bus(run_dir, WallClock()) as opened:
        yield opened


@pytest.fixture
def other_bus(run_dir: Path) -> Iterator[Bus]:
    """As another process would have it."""
    with Bus(run_dir, WallClock()) as opened:
        yield opened


@pytest.fixture
def spawn() -> Iterator[Callable[..., BaseProcess]]:
    """Start a function of `transport_workers` in a process of its own; killed at the end of the test."""
    context = multiprocessing.get_context("spawn")
    started: list[BaseProcess] = []

    def start(function: Callable[..., None], *arguments: Any) -> BaseProcess:
        process = context.Process(target=function, args=arguments, daemon=True)
        process.start()
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.join()
