"""The shared block between the simulated world and the chains."""

import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from aloha_runtime.errors import TransportError
from aloha_runtime.robot import START_POSE
from aloha_runtime.run_directory import RunDirectory
from aloha_runtime.sim.chain import Chain
from aloha_runtime.sim.link import ARMS, Link, LinkPlant, link_path

SEVEN = (*START_POSE, 0.7)
RUN = [sys.executable, "-c"]


@pytest.fixture
def world(tmp_path: Path) -> Iterator[Link]:
    link = Link.create(tmp_path)
    yield link
    link.close()


def test_every_record_of_every_arm_arrives_unmixed(world: Link, tmp_path: Path) -> None:
    other = Link.attach(tmp_path)
    for number, arm in enumerate(ARMS):
        assert not other.has_present(arm)
        world.write_present(arm, [number + 0.1] * 7, [number + 0.2] * 7, [number + 0.3] * 7)
        other.write_command(arm, [number + 0.4] * 7, [True] * number + [False] * (7 - number), [number + 0.5] * 7)
        world.write_hand(arm, [number + 0.6] * 7)
    for number, arm in enumerate(ARMS):
        state = other.read_present(arm)
        assert (set(state.angles), set(state.velocities), set(state.currents_ma)) == (
            {number + 0.1},
            {number + 0.2},
            {number + 0.3},
        )
        goals, torque, limits = world.read_command(arm)
        assert (set(goals), sum(torque), set(limits)) == ({number + 0.4}, number, {number + 0.5})
        assert other.read_hand(arm) == [number + 0.6] * 7
    world.write_hand(ARMS[0], None)
    assert other.read_hand(ARMS[0]) is None
    assert other.read_clock() == 0
    world.write_clock(123)
    assert other.read_clock() == 123
    other.close()


def test_before_anybody_commands_there_is_no_torque(world: Link) -> None:
    assert not any(world.read_command("follower_left")[1])
    assert world.read_hand("leader_left") is None


def test_a_second_world_is_refused_and_a_missing_one_named(world: Link, tmp_path: Path) -> None:
    with pytest.raises(TransportError, match=r"runs in .* already: pid"):
        Link.create(tmp_path)
    with pytest.raises(TransportError, match="aloha up"):
        Link.attach(tmp_path / "elsewhere")


def test_close_removes_the_block(tmp_path: Path) -> None:
    link = Link.create(tmp_path)
    other = Link.attach(tmp_path)
    link.close()
    assert link_path(tmp_path) is None
    assert not other.is_current
    other.close()


def killed_world(tmp_path: Path) -> None:
    """A world that dies without tidying up."""
    code = f"""
import os, pathlib, signal
from aloha_runtime.sim.link import Link
link = Link.create(pathlib.Path({str(tmp_path)!r}))
link.write_present("follower_left", [1.0] * 7, [0.0] * 7, [0.0] * 7)
print("ready", flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""
    assert subprocess.run([*RUN, code], check=False).returncode == -signal.SIGKILL


def test_a_dead_worlds_block_is_replaced_and_its_readers_survive(tmp_path: Path) -> None:
    killed_world(tmp_path)
    orphan = Link.attach(tmp_path)
    assert orphan.read_present("follower_left").angles == (1.0,) * 7
    heir = Link.create(tmp_path)
    assert not orphan.is_current
    assert orphan.read_present("follower_left").angles == (1.0,) * 7
    fresh = Link.attach(tmp_path)
    assert fresh.is_current
    assert not fresh.has_present("follower_left")
    for link in (orphan, fresh, heir):
        link.close()


def test_the_run_directory_cleans_up_after_a_dead_world(tmp_path: Path) -> None:
    killed_world(tmp_path)
    block = link_path(tmp_path)
    assert block is not None
    (tmp_path / "ttyDXL_follower_left").symlink_to("/dev/null")
    tmp_path.chmod(0o700)
    directory = RunDirectory(tmp_path)
    assert {block.name, "ttyDXL_follower_left"} <= set(directory.stale)
    assert link_path(tmp_path) is None
    directory.cleanup()


def test_a_reader_never_sees_half_a_record(world: Link, tmp_path: Path) -> None:
    code = f"""
import pathlib
from aloha_runtime.sim.link import Link
link = Link.attach(pathlib.Path({str(tmp_path)!r}))
number = 0.0
while link.read_hand("leader_left") is None:
    number += 1.0
    link.write_present("follower_left", [number] * 7, [number] * 7, [number] * 7)
"""
    seen: set[float] = set()
    torn = 0
    with subprocess.Popen([*RUN, code]) as writer:
        while len(seen) < 2000 and not torn and writer.poll() is None:
            state = world.read_present("follower_left")
            values = {*state.angles, *state.velocities, *state.currents_ma}
            torn += len(values) != 1
            seen |= values
        world.write_hand("leader_left", SEVEN)
    assert (len(seen), torn) == (2000, 0)


def test_a_chain_moves_the_world_through_it(world: Link, tmp_path: Path) -> None:
    world.write_present("follower_left", SEVEN, [0.0] * 7, [0.0] * 7)
    chain = Chain("follower", LinkPlant(Link.attach(tmp_path), "follower_left"))
    chain.receive(bytes.fromhex("FFFFFD00FE0900830"[:-1]), 0)  # half a packet commands nothing
    assert not any(world.read_command("follower_left")[1])
    for servo in chain.servos:
        servo.write(116, round(servo.zero_tick + servo.ticks_per_rad * 0.1).to_bytes(4, "little"))
        servo.write(64, b"\1")
    chain.drive.changed()
    chain.advance(10_000_000)
    goals, torque, limits = world.read_command("follower_left")
    assert all(torque)
    assert goals == pytest.approx([0.1] * 7, abs=1e-3)
    assert min(limits) > 0
