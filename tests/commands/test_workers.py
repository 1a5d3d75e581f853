"""Worker processes: results, errors, deaths and interruptions. Workers here are real processes that really die."""

import os
import signal
import threading
import time
from collections.abc import Callable
from contextlib import closing
from functools import partial
from pathlib import Path

import psutil
import pytest

from aloha_runtime.commands.workers import run_jobs
from aloha_runtime.errors import AlohaError, DatasetError, ProcessError


def setup_ok() -> Callable[[int], tuple[int, int]]:
    return lambda number: (number * number, os.getpid())


def setup_refusing() -> Callable[[int], int]:
    raise DatasetError("the shelf is empty: fill it")


def refuse(number: int) -> int:
    if number == 3:
        raise DatasetError(f"{number} is too much")
    return number


def setup_refuse() -> Callable[[int], int]:
    return refuse


def die(how: int, number: int) -> int:
    if number == 2:
        if how:
            os.kill(os.getpid(), how)
        os._exit(5)
    time.sleep(0.05)
    return number


def setup_die(how: int) -> Callable[[int], int]:
    return partial(die, how)


def sleep_long(folder: Path, number: int) -> int:
    (folder / f"{number}").touch()
    time.sleep(600)
    return number


def setup_sleep(folder: Path) -> Callable[[int], int]:
    return partial(sleep_long, folder)


def name(number: int) -> str:
    return f"number {number}"


HELPERS = ("resource_tracker", "forkserver")
"""Of `multiprocessing`, which serve this process until it ends."""


def children() -> list[psutil.Process]:
    """Workers of this process that are alive."""
    found = ((child, " ".join(child.cmdline())) for child in psutil.Process().children())
    return [child for child, command in found if not any(helper in command for helper in HELPERS)]


def test_every_job_has_its_result_and_no_worker_is_left() -> None:
    results = dict(run_jobs(setup_ok, range(7), 2, name))
    assert {job: square for job, (square, _) in results.items()} == {n: n * n for n in range(7)}
    pids = {pid for _, pid in results.values()}
    assert 1 <= len(pids) <= 2
    assert os.getpid() not in pids
    assert children() == []


def test_an_error_of_a_worker_is_one_message_with_its_exit_code() -> None:
    for setup, message in ((setup_refusing, "the shelf is empty: fill it"), (setup_refuse, "3 is too much")):
        with pytest.raises(AlohaError, match=message) as caught:
            dict(run_jobs(setup, range(5), 2, name))
        assert caught.value.exit_code == DatasetError.exit_code
        assert children() == []


@pytest.mark.parametrize(
    ("how", "message", "code"),
    [
        (signal.SIGKILL, r"worker \d \(number 2\) was killed by SIGKILL; memory", 1),
        (0, r"worker \d \(number 2\) ended with exit code 5", 5),
    ],
)
def test_a_worker_that_dies_is_named_with_its_job(how: int, message: str, code: int) -> None:
    with pytest.raises(ProcessError, match=message) as caught:
        dict(run_jobs(partial(setup_die, how), range(5), 2, name))
    assert caught.value.exit_code == code
    assert children() == []


def test_closing_early_ends_workers_in_the_middle_of_a_job(tmp_path: Path) -> None:
    with closing(run_jobs(setup_ok, range(100), 2, name)) as results:
        next(results)
        assert len(children()) == 2
    assert children() == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_workers_and_is_one_interrupt(tmp_path: Path, number: signal.Signals) -> None:
    def interrupt() -> None:
        while len(list(tmp_path.iterdir())) < 2:
            time.sleep(0.01)
        os.kill(os.getpid(), number)

    before = signal.getsignal(number)
    thread = threading.Thread(target=interrupt)
    thread.start()
    with pytest.raises(KeyboardInterrupt):
        dict(run_jobs(partial(setup_sleep, tmp_path), range(4), 2, name))
    thread.join()
    assert children() == []
    assert signal.getsignal(number) is before
