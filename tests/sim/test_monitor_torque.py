"""The goal monitor while torque is switched on, on the wire of an emulated chain that keeps its old goals."""

import ast
from pathlib import Path

import pytest
from chain_tools import MS

from aloha_runtime import sim
from aloha_runtime.control.limits import default_limits
from aloha_runtime.dynamixel import packets
from aloha_runtime.robot import KITS, RAD_PER_TICK
from aloha_runtime.sim.chain import Chain
from aloha_runtime.sim.goal_track import envelope
from aloha_runtime.sim.monitor import Monitor
from aloha_runtime.sim.servo import ServoPlant

MASTERS = (1, 2, 4, 6, 7, 8, 9)
TURN = 4096


class Listened:
    """An emulated follower whose wire the monitor hears; a driver's packets by hand."""

    def __init__(self) -> None:
        self.plant = ServoPlant("follower")
        self.chain = Chain("follower", self.plant)
        bounds = envelope("follower", default_limits(), KITS["aloha"].follower_gripper, "left")
        self.monitor = Monitor(bounds)
        self.now_ns = 10**9
        self.read()

    def tell(self, data: bytes) -> None:
        self.now_ns += MS
        self.monitor.host(data, self.now_ns)
        for reply in self.chain.receive(data, self.now_ns):
            self.now_ns = max(self.now_ns, reply.ready_at_ns)
            self.monitor.servo(reply.data, self.now_ns)
        self.chain.advance(self.now_ns)

    def read(self) -> dict[int, int]:
        self.tell(packets.sync_read(MASTERS, 126, 10, fast=True))
        return self.monitor.report().present

    def goals(self, ticks: dict[int, int]) -> None:
        self.tell(packets.sync_write(116, 4, [(servo, tick.to_bytes(4, "little")) for servo, tick in ticks.items()]))

    def torque(self, on: bool = True) -> None:
        self.tell(packets.sync_write(64, 1, [(servo, bytes((on,))) for servo in range(1, 10)]))

    def wait(self, milliseconds: int, ticks: dict[int, int] | None = None) -> None:
        """A driver's cycles."""
        for _ in range(milliseconds // 5):
            self.now_ns += 3 * MS
            if ticks:
                self.goals(ticks)
            self.read()

    def turn_waist(self, ticks: int) -> None:
        self.plant.angles[0] = (ticks - 2048) * RAD_PER_TICK

    def counts(self) -> dict[str, int]:
        return self.monitor.report().counts


def test_goals_where_the_arm_is_are_fine() -> None:
    wire = Listened()
    here = {servo: tick for servo, tick in wire.read().items() if servo in MASTERS}
    wire.goals(here)
    wire.torque()
    wire.wait(200, here)
    assert wire.counts() == {}
    assert 0 < wire.monitor.report().worst["leap at torque"] < 0.6


def test_a_goal_from_before_the_fold_is_a_leap_of_a_turn() -> None:
    wire = Listened()
    wire.turn_waist(4135)
    here = {servo: min(4095, tick) for servo, tick in wire.read().items() if servo in MASTERS}
    assert here[1] == 4095
    wire.goals(here)
    wire.torque()
    wire.wait(20)
    assert wire.counts()["leap at torque"] == 1
    (offence,) = [found for found in wire.monitor.report().offences if found.kind == "leap at torque"]
    assert offence.servo == 1
    assert offence.value == pytest.approx(TURN - 40, abs=60)


def test_a_goal_that_foresees_the_fold_is_fine() -> None:
    wire = Listened()
    wire.turn_waist(4135)
    here = {servo: tick % TURN for servo, tick in wire.read().items() if servo in MASTERS}
    wire.goals(here)
    wire.torque()
    wire.wait(100, here)
    assert not {"leap at torque", "moved at torque"} & set(wire.counts())


def test_torque_with_an_old_goal_in_the_register_is_a_leap() -> None:
    wire = Listened()
    here = {servo: tick for servo, tick in wire.read().items() if servo in MASTERS}
    wire.goals(here)
    wire.torque()
    wire.wait(50, here)
    wire.torque(on=False)
    wire.plant.angles[0] += 0.5
    wire.wait(50)
    wire.torque()
    wire.wait(20)
    assert wire.counts() == {"leap at torque": 1}


def test_a_goal_corrected_behind_the_switch_has_moved() -> None:
    wire = Listened()
    here = {servo: tick for servo, tick in wire.read().items() if servo in MASTERS}
    wire.goals({**here, 1: here[1] + 12})
    wire.torque()
    wire.read()
    wire.goals(here)
    assert wire.counts() == {"moved at torque": 1}


def test_a_held_arm_that_is_let_down_by_each_arming_is_seen() -> None:
    wire = Listened()
    here = {servo: tick for servo, tick in wire.read().items() if servo in MASTERS}
    wire.goals(here)
    wire.torque()
    wire.wait(500, here)
    sagged = {servo: tick for servo, tick in wire.read().items() if servo in MASTERS}
    assert abs(sagged[4] - here[4]) > 15
    wire.goals(sagged)
    wire.torque()
    wire.wait(20, sagged)
    assert wire.counts()["moved at torque"] >= 1
    assert {found.servo for found in wire.monitor.report().offences if found.kind == "moved at torque"} == {4}


def test_after_a_trip_of_the_watchdog_the_goal_is_not_known() -> None:
    """The servo has put its own goal there; a driver may begin from where the arm is."""
    wire = Listened()
    here = {servo: tick for servo, tick in wire.read().items() if servo in MASTERS}
    wire.goals(here)
    wire.tell(packets.sync_write(98, 1, [(servo, b"\5") for servo in range(1, 10)]))
    wire.torque()
    wire.wait(500, here)
    wire.now_ns += 150 * MS
    sagged = {servo: tick for servo, tick in wire.read().items() if servo in MASTERS}
    wire.tell(packets.sync_write(98, 1, [(servo, b"\0") for servo in range(1, 10)]))
    wire.goals(sagged)
    wire.torque()
    wire.wait(50, sagged)
    assert wire.counts() == {}


def test_a_servo_that_has_been_without_power_says_what_its_goal_is() -> None:
    for reads_it in (True, False):
        wire = Listened()
        here = {servo: tick for servo, tick in wire.read().items() if servo in MASTERS}
        wire.goals(here)
        wire.torque()
        wire.wait(100, here)
        wire.torque(on=False)
        wire.chain.cut_power(wire.now_ns)
        wire.turn_waist(2300)
        wire.chain.return_power(wire.now_ns)
        wire.now_ns += 250 * MS
        if reads_it:
            wire.tell(packets.sync_read(MASTERS, 64, 84))
        wire.torque()
        wire.wait(20)
        assert wire.counts() == ({} if reads_it else {"leap at torque": 1})


def test_torque_that_a_servo_says_it_has_lost_is_lost() -> None:
    wire = Listened()
    here = {servo: tick for servo, tick in wire.read().items() if servo in MASTERS}
    wire.goals(here)
    wire.torque()
    wire.wait(200, here)
    wire.chain.brown_out(wire.now_ns)
    wire.now_ns += 250 * MS
    wire.plant.angles[0] += 0.1
    wire.tell(packets.sync_read(MASTERS, 64, 1))
    now = {servo: tick for servo, tick in wire.read().items() if servo in MASTERS}
    wire.goals(now)
    wire.torque()
    wire.wait(50, now)
    assert wire.counts() == {}


def test_a_stop_on_the_way_is_no_offence_of_the_switch() -> None:
    wire = Listened()
    here = {servo: tick for servo, tick in wire.read().items() if servo in MASTERS}
    wire.goals(here)
    wire.torque()
    wire.wait(200, here)
    for cycle in range(40):
        wire.wait(5, {**here, 1: here[1] + round(0.02 * cycle * cycle)})
    now = {servo: tick for servo, tick in wire.read().items() if servo in (1,)}
    wire.goals(now)
    wire.torque()
    wire.wait(20, now)
    assert "moved at torque" not in wire.counts()


def test_a_goal_is_judged_before_the_servo_has_said_where_it_is() -> None:
    wire = Listened()
    wire.turn_waist(4135)
    wire.read()
    wire.torque()
    wire.goals({1: 39})  # in the turn below
    assert wire.counts() == {}
    wire = Listened()
    wire.torque()
    wire.goals({1: 2600})
    assert wire.counts() == {"lead": 1}


def test_it_shares_no_code_with_driver_and_servos() -> None:
    """Names and limits only: reading, decoding and arithmetic are its own."""
    allowed = {
        "aloha_runtime": {"robot"},
        "aloha_runtime.control.limits": {"Limits"},
        "aloha_runtime.robot": {"SERVOS", "Gripper", "Role"},
        "aloha_runtime.sim.goal_track": {"RAD_PER_TICK", "Bounds", "GoalTrack"},
        "aloha_runtime.sim.torque_watch": {"TorqueWatch"},
        "aloha_runtime.sim.wire": {"Host", "Tap", "reported"},
    }
    for name in ("monitor", "goal_track", "torque_watch", "wire"):
        tree = ast.parse((Path(sim.__file__).parent / f"{name}.py").read_text())
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("aloha_runtime"):
                assert {alias.name for alias in node.names} <= allowed[str(node.module)], name
            elif isinstance(node, ast.Import):
                assert not any(alias.name.startswith("aloha_runtime") for alias in node.names), name
    used = {
        node.attr
        for node in ast.walk(ast.parse((Path(sim.__file__).parent / "goal_track.py").read_text()))
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "robot"
    }
    assert used <= {"Side", "JOINTS", "SIDE_SLICE"}
