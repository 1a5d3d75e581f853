"""Ctrl-C before a stack begins: one that Python loses in a destructor still ends the command."""

import os
import signal
from collections.abc import Iterator

import pytest

from aloha_runtime.commands import interrupts
from aloha_runtime.commands.interrupts import Interrupts


@pytest.fixture(autouse=True)
def handlers() -> Iterator[None]:
    before = {number: signal.getsignal(number) for number in interrupts.SIGNALS}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)
    interrupts._early.clear()


class Interrupted:
    """An object during whose end a Ctrl-C comes."""

    def __del__(self) -> None:
        os.kill(os.getpid(), signal.SIGINT)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_ctrl_c_that_python_loses_is_noticed_where_the_stack_begins() -> None:
    interrupts.remember()
    victim = Interrupted()
    del victim  # Python prints the KeyboardInterrupt, and goes on
    noted = Interrupts()
    noted.begin()
    with pytest.raises(KeyboardInterrupt):
        noted.check()
    noted.check()  # once
    noted.end()


def test_a_ctrl_c_at_any_other_moment_ends_the_command_at_once() -> None:
    interrupts.remember()
    with pytest.raises(KeyboardInterrupt):
        os.kill(os.getpid(), signal.SIGINT)
