"""`aloha servo` on an emulated arm, and that the bus benchmark measures what it names."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from emulated import Emulated, emulated_chain

from aloha_runtime.commands import bench_bus, servo
from aloha_runtime.errors import HardwareError
from aloha_runtime.hardware.dynamixel import DynamixelArm


@pytest.fixture(scope="module")
def chain(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Emulated]:
    with emulated_chain(tmp_path_factory.mktemp("ports") / "ttyDXL_test", "follower") as world:
        yield world


@pytest.fixture
def world(chain: Emulated) -> Emulated:
    chain("reset")
    return chain


def test_find_names_every_servo(world: Emulated, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(servo, "BAUDS", (57_600, 1_000_000))  # a second each
    found = servo.find(world.port)
    assert list(found) == [1_000_000]
    assert {i: model for i, (model, _) in found[1_000_000].items()} == dict.fromkeys(range(1, 8), 1120) | {
        8: 1020,
        9: 1020,
    }
    assert {firmware for _, firmware in found[1_000_000].values()} == {46}


def test_the_command_of_a_refusal_cures_it(world: Emulated) -> None:
    world("set", 7, 9, 1, 250)
    arm = DynamixelArm("follower_left", "follower", world.port)
    with pytest.raises(HardwareError) as refusal:
        arm.connect()
    words = str(refusal.value).split("`")[1].split()
    assert words[:3] == ["aloha", "servo", "write"]
    servo.write(words[3], int(words[4]), words[5], int(words[6]))
    arm.connect()
    arm.disconnect()


def test_a_held_servo_is_released_before_it_is_written(world: Emulated) -> None:
    world("set", 7, 64, 1, 1)
    with pytest.raises(HardwareError, match="servo 7 has torque on"):
        servo.write(world.port, 7, "Return_Delay_Time", 0)
    assert servo.release(world.port) == list(range(1, 10))
    assert world("get", 7, 64, 1) == 0
    servo.write(world.port, 7, "Return_Delay_Time", 0)


@pytest.mark.parametrize(("register", "value"), [("ID", 3), ("Goal_Position", 0), ("Nonsense", 0), ("Drive_Mode", 99)])
def test_what_this_command_does_not_set(world: Emulated, register: str, value: int) -> None:
    with pytest.raises(HardwareError):
        servo.write(world.port, 1, register, value)


def test_the_port_must_be_free(world: Emulated) -> None:
    arm = DynamixelArm("follower_left", "follower", world.port)
    arm.connect()
    with pytest.raises(HardwareError, match="in use by"):
        servo.find(world.port)
    arm.disconnect()


def test_the_bus_benchmark_measures_every_client(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench_bus, "ROUNDS", 1)
    rows = bench_bus.run(0.3)
    assert len({row.name for row in rows}) == len(rows) == 9
    assert all(row.value > 0 for row in rows)
    assert {row.goal for row in rows if row.met is not None} == {190.0, 10.0, 7.0}
    assert all((row.peer or 1) > 0 for row in rows)


def test_ports_of_the_benchmark_vanish(tmp_path: Path) -> None:
    with bench_bus.EmulatedArm(tmp_path, "leader_left") as arm:
        assert arm.port.exists()
    assert not arm.port.exists()
