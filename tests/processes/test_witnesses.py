"""The witnesses of a loop that talks to servos: an echo through the kernel, chains that write down their turns."""

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from aloha_runtime import config
from aloha_runtime.hardware.echo import Echo
from aloha_runtime.messages import MS
from aloha_runtime.sim.link import Link
from aloha_runtime.stillness import ENDED_NS, is_stall
from aloha_runtime.witnesses import CHAIN_LATE_NS, LATE_NS, Witnesses

SIM = config.load("sim")
ALLOWED = 100 * MS


def test_an_echo_comes_back_and_is_sent_again() -> None:
    echo = Echo()
    assert not echo.came_back(), "nothing has been sent before"
    for _ in range(3):
        give_up = time.monotonic() + 60
        while not echo.came_back():
            assert time.monotonic() < give_up
            time.sleep(0.001)
    echo.close()
    assert not echo.came_back()
    echo.close()


class Scene:
    """Witnesses of followers whose clock is the test's: the echo answers unless it is `lost`, chains when told."""

    def __init__(self, run_dir: Path, virtual: bool = False) -> None:
        self.link = Link.create(run_dir)
        self.witnesses = Witnesses(SIM, run_dir, "follower", virtual)
        self.lost = False
        if self.witnesses._echo is not None:
            self.witnesses._echo.close()
            self.witnesses._echo = self  # type: ignore[assignment]
        self.now = 10 * ENDED_NS

    def came_back(self) -> bool:
        return not self.lost

    def close(self) -> None:
        pass

    def run(self, ms: int, loop: bool = True, chains: tuple[str, ...] = ("follower_left", "follower_right")) -> None:
        for _ in range(ms // 5):
            self.now += 5 * MS
            for arm in chains:
                self.link.write_turn(arm, self.now)
            if loop:
                self.witnesses.look(self.now)

    def excuse(self, ms: int) -> bool:
        return is_stall(self.witnesses.stillness.excuse(ms * MS, self.now, ALLOWED))


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    scene = Scene(tmp_path)
    scene.run(200)
    yield scene
    scene.witnesses.close()
    scene.link.close()


def test_nobody_is_excused_on_a_quiet_computer(scene: Scene) -> None:
    assert not scene.excuse(105)


def test_the_own_loop_the_echo_and_a_chain_are_witnesses(scene: Scene) -> None:
    scene.run(140, loop=False)
    scene.run(5)
    assert scene.excuse(140)
    scene.run(400)
    assert not scene.excuse(105)
    scene.lost = True
    scene.run(140)
    assert scene.excuse(140)
    scene.lost = False
    scene.run(400)
    scene.run(140, chains=("follower_right",))
    assert scene.excuse(140)
    scene.run(5)
    assert scene.excuse(140), "the chain is back, and has written when"


def test_where_no_terminal_is_left_for_an_echo_the_own_loop_is_a_witness(scene: Scene) -> None:
    """An echo is looked for by the loop alone, so it stays away whenever the loop has no turn."""
    scene.witnesses._echo = None
    scene.run(1200, chains=())
    assert not scene.excuse(105)
    scene.run(140, loop=False, chains=())
    scene.run(5, chains=())
    assert scene.excuse(140)


def test_a_chain_that_does_not_come_back_is_named_and_a_new_world_is_found(scene: Scene, tmp_path: Path) -> None:
    scene.run(1100, chains=())
    assert not scene.excuse(1000)
    scene.link.close()
    scene.link = Link.create(tmp_path)
    scene.run(1200)
    scene.run(100, chains=("follower_right",))
    assert scene.excuse(105)


def test_a_silence_of_the_supervisor_is_reworded_once_when_it_begins(scene: Scene) -> None:
    silent = "the supervisor is silent; see whether it runs, then arm again"
    assert scene.witnesses.reworded(silent, scene.now) == silent
    scene.run(250, loop=False)
    scene.run(5)
    assert scene.witnesses.reworded(silent, scene.now) == silent, "it was silent before the computer stood still"
    assert scene.witnesses.reworded("", scene.now) == ""
    assert is_stall(scene.witnesses.reworded(silent, scene.now))
    scene.run(1000)
    assert is_stall(scene.witnesses.reworded(silent, scene.now))
    for other in ("the last because left_waist is nan", "no action for 505 ms; see"):
        assert scene.witnesses.reworded(other, scene.now) == other


def test_in_virtual_time_nobody_is_late(tmp_path: Path) -> None:
    scene = Scene(tmp_path, virtual=True)
    scene.run(20)
    scene.run(500, loop=False)
    scene.run(5)
    assert not scene.excuse(500)
    scene.link.close()
    assert 2 * LATE_NS < CHAIN_LATE_NS
