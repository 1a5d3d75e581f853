"""No command grows by descriptors, and arms are parked when there is none left."""

import contextlib
import os
import resource
from collections.abc import Iterator
from pathlib import Path

import pytest
from test_leaving import rig_of

from aloha_runtime.commands import operate, preflight_live
from aloha_runtime.commands.stack import Stack
from aloha_runtime.messages import Mode
from aloha_runtime.processes.table import Job

RAISES = 50


def descriptors(pid: int | str = "self") -> int:
    return len(os.listdir(f"/proc/{pid}/fd"))


@contextlib.contextmanager
def exhausted() -> Iterator[None]:
    """No descriptor can be opened any more."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    taken: list[int] = []
    resource.setrlimit(resource.RLIMIT_NOFILE, (descriptors(), hard))
    try:
        with contextlib.suppress(OSError):
            while True:
                taken.append(os.open("/dev/null", os.O_RDONLY))
        with pytest.raises(OSError, match="Too many open files"):
            os.pipe()
        yield
    finally:
        for descriptor in taken:
            os.close(descriptor)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.long
@pytest.mark.timeout(600)
def test_fifty_raises_open_nothing(tmp_path: Path) -> None:
    with Stack(rig_of("follower_left"), Job.TELEOP, tmp_path / "run") as stack:
        pids = ["self", *(stack.pid(process.name) for process in stack.table)]
        operate.raise_arms(stack)
        before, opened = [descriptors(pid) for pid in pids], stack.bus.opened
        for _ in range(RAISES):
            stack.ask("stop")
            operate.raise_arms(stack)
        assert stack.bus.opened == opened
        assert [descriptors(pid) for pid in pids] == before
        preflight_live.look(stack, ["cam_high"])
        assert stack.bus.opened == opened, "a preflight closes what it has looked through"


@pytest.mark.timeout(300)
def test_arms_are_parked_without_a_free_descriptor(tmp_path: Path) -> None:
    """The command fails for want of descriptors while the arms are up."""
    stack, modes = Stack(rig_of("follower_left"), Job.TELEOP, tmp_path / "run"), []
    end = stack._end
    with pytest.raises(OSError, match="Too many open files"), contextlib.ExitStack() as inside:  # noqa: PT012

        def watched() -> None:
            modes.append(stack.mode.latest().mode)
            inside.close()  # what comes now is no motion any more
            end()

        stack._end = watched  # type: ignore[method-assign]
        with stack:
            operate.raise_arms(stack)
            assert stack.mode.latest().mode is Mode.ARMED
            inside.enter_context(exhausted())
            os.open("/dev/null", os.O_RDONLY)
    assert modes == [Mode.IDLE]
