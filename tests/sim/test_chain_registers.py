"""The control table of an emulated servo: ranges, access, EEPROM lock, modes, direction, indirect addresses."""

import pytest
from chain_tools import Bench
from hypothesis import given, settings
from hypothesis import strategies as st

from aloha_runtime.dynamixel import packets
from aloha_runtime.dynamixel import registers as reg
from aloha_runtime.dynamixel.packets import StatusError
from aloha_runtime.dynamixel.registers import Register
from aloha_runtime.robot import RAD_PER_TICK

RANGE, LENGTH, LIMIT, ACCESS = (
    StatusError.DATA_RANGE,
    StatusError.DATA_LENGTH,
    StatusError.DATA_LIMIT,
    StatusError.ACCESS,
)


@pytest.fixture
def bench() -> Bench:
    return Bench()


TESTED_BELOW = (reg.ID, reg.BAUD_RATE, reg.STATUS_RETURN_LEVEL, reg.OPERATING_MODE, reg.GOAL_POSITION)


@pytest.mark.parametrize(
    "entry", [entry for entry in reg.REGISTERS if entry not in TESTED_BELOW], ids=lambda entry: entry.name
)
def test_every_register_keeps_its_range_and_its_access(bench: Bench, entry: Register) -> None:
    """On a gripper, whose model has every register."""
    if not entry.writable:
        assert bench.write(9, entry, entry.initial) == ACCESS
        return
    for value in (entry.low, entry.high):
        reachable = abs(value) <= bench.chain.servo(9).get(reg.VELOCITY_LIMIT) if entry is reg.GOAL_VELOCITY else True
        assert bench.write(9, entry, value) == (0 if reachable else LIMIT)
    beyond = entry.high + 1
    if beyond < 1 << (8 * entry.size - entry.signed):
        assert bench.write(9, entry, beyond) in (RANGE, LIMIT)
        assert bench.read(9, entry) != beyond


def test_a_factory_kit_reports_what_its_notes_say(bench: Bench) -> None:
    assert bench.read(1, reg.MODEL_NUMBER) == 1120
    assert bench.read(8, reg.MODEL_NUMBER) == 1020
    assert [bench.read(servo, reg.SECONDARY_ID) for servo in (1, 2, 3, 4, 5)] == [255, 255, 2, 255, 4]
    assert [bench.read(servo, reg.DRIVE_MODE) for servo in (1, 2, 3, 4, 5, 7)] == [0, 1, 0, 1, 0, 1]
    assert bench.read(2, reg.MIN_POSITION_LIMIT) == 841
    assert bench.read(2, reg.MAX_POSITION_LIMIT) == 2867
    assert bench.read(9, reg.VELOCITY_LIMIT) == 131
    assert bench.read(9, reg.RETURN_DELAY_TIME) == 0
    leader = Bench("leader")
    assert [leader.read(servo, reg.MODEL_NUMBER) for servo in (1, 8, 9)] == [1020, 1060, 1070]


def test_torque_locks_the_eeprom(bench: Bench) -> None:
    bench.torque(9)
    assert bench.write(9, reg.OPERATING_MODE, 5) == ACCESS
    assert bench.write(9, reg.RETURN_DELAY_TIME, 0) == ACCESS
    assert bench.write(9, reg.POSITION_P_GAIN, 100) == 0
    assert bench.write(9, reg.TORQUE_ENABLE, 0) == 0
    assert bench.write(9, reg.OPERATING_MODE, 5) == 0


def test_modes_depend_on_the_model() -> None:
    follower, leader = Bench("follower"), Bench("leader")
    for mode in (0, 1, 3, 4, 5, 16):
        assert follower.write(9, reg.OPERATING_MODE, mode) == 0
        assert leader.write(9, reg.OPERATING_MODE, mode) == (0 if mode in (1, 3, 4, 16) else RANGE)
    assert follower.write(9, reg.OPERATING_MODE, 2) == RANGE
    assert leader.write(9, reg.CURRENT_LIMIT, 100) == ACCESS
    assert leader.write(9, reg.GOAL_CURRENT, 100) == ACCESS


def test_a_change_of_mode_resets_goals_and_profile(bench: Bench) -> None:
    bench.write(9, reg.PROFILE_VELOCITY, 50)
    bench.write(9, reg.GOAL_CURRENT, 10)
    assert bench.write(9, reg.OPERATING_MODE, 5) == 0
    assert bench.read(9, reg.PROFILE_VELOCITY) == 0
    assert bench.read(9, reg.GOAL_CURRENT) == bench.read(9, reg.CURRENT_LIMIT)


@pytest.mark.parametrize("role", ["follower", "leader"])
def test_a_change_of_mode_resets_the_gains(role: str) -> None:
    bench = Bench(role)  # type: ignore[arg-type]
    gains = [entry for entry in reg.REGISTERS if entry.name.endswith("_Gain")]
    assert len(gains) == 7
    before = [bench.read(9, gain) for gain in gains]
    for gain in gains:
        assert bench.write(9, gain, 333) == 0
    bench.write(9, reg.OPERATING_MODE, 3)  # it was there already
    assert {bench.read(9, gain) for gain in gains} == {333}
    bench.write(9, reg.OPERATING_MODE, 4)
    assert [bench.read(9, gain) for gain in gains] == before


def test_goals_keep_the_limits_of_their_mode(bench: Bench) -> None:
    assert bench.write(2, reg.GOAL_POSITION, 840) == LIMIT
    assert bench.write(2, reg.GOAL_POSITION, 841) == 0
    assert bench.write(2, reg.OPERATING_MODE, 4) == 0
    assert bench.write(2, reg.GOAL_POSITION, -5000) == 0
    assert bench.write(9, reg.CURRENT_LIMIT, 200) == 0
    assert bench.write(9, reg.GOAL_CURRENT, 201) == LIMIT
    assert bench.write(9, reg.GOAL_CURRENT, -200) == 0


def test_lengths_and_addresses(bench: Bench) -> None:
    (packet,) = bench.talk(packets.write(1, 116, b"\0\0"))
    assert packet.error == LENGTH
    (packet,) = bench.talk(packets.write(1, 118, b"\0\0"))
    assert packet.error == ACCESS
    (packet,) = bench.talk(packets.read(1, 660, 4))
    assert packet.error == ACCESS
    assert packet.data == b""
    (packet,) = bench.talk(packets.read(1, 0, 147))
    assert len(packet.data) == 147


def test_a_block_is_written_whole_or_not_at_all(bench: Bench) -> None:
    block = reg.PROFILE_ACCELERATION.encode(20) + reg.PROFILE_VELOCITY.encode(40000) + reg.GOAL_POSITION.encode(2000)
    (packet,) = bench.talk(packets.write(1, 108, block))
    assert packet.error == RANGE
    assert bench.read(1, reg.PROFILE_ACCELERATION) == 0
    block = reg.PROFILE_ACCELERATION.encode(20) + reg.PROFILE_VELOCITY.encode(40) + reg.GOAL_POSITION.encode(2000)
    (packet,) = bench.talk(packets.write(1, 108, block))
    assert packet.error == 0
    assert bench.read(1, reg.GOAL_POSITION) == 2000


def test_reverse_mode_mirrors_and_the_homing_offset_is_added(bench: Bench) -> None:
    tick = bench.read(7, reg.PRESENT_POSITION)
    assert bench.write(7, reg.DRIVE_MODE, 0) == 0
    assert bench.read(7, reg.PRESENT_POSITION) == 4096 - tick
    assert bench.write(7, reg.HOMING_OFFSET, 100) == 0
    assert bench.read(7, reg.PRESENT_POSITION) == 4196 - tick
    assert bench.write(7, reg.DRIVE_MODE, 1) == 0
    assert bench.read(7, reg.PRESENT_POSITION) == tick + 100


@pytest.mark.parametrize("role", ["leader", "follower"])
def test_a_shadow_agrees_with_its_master_after_the_homing_offset(role: str) -> None:
    """Present = actual + offset in either drive mode, so the offset is always master minus shadow."""
    bench = Bench(role)  # type: ignore[arg-type]
    for master, shadow in ((2, 3), (4, 5)):
        gap = bench.read(master, reg.PRESENT_POSITION) - bench.read(shadow, reg.PRESENT_POSITION)
        assert gap != 0
        assert bench.write(shadow, reg.HOMING_OFFSET, gap) == 0
        assert bench.read(shadow, reg.PRESENT_POSITION) == bench.read(master, reg.PRESENT_POSITION)


def test_velocity_and_current_turn_with_the_drive_mode(bench: Bench) -> None:
    bench.torque(1)
    bench.write(1, reg.GOAL_POSITION, 2300)
    bench.pass_ms(30)
    assert bench.read(1, reg.PRESENT_VELOCITY) > 10
    assert bench.read(1, reg.PRESENT_CURRENT) > 10
    assert bench.read(1, reg.MOVING) == 1
    bench.torque(2)
    bench.write(2, reg.GOAL_POSITION, 1300)
    bench.pass_ms(30)
    assert bench.read(2, reg.PRESENT_VELOCITY) < -10
    bench.pass_ms(1500)
    assert abs(bench.read(1, reg.PRESENT_POSITION) - 2300) <= 1
    assert bench.read(1, reg.MOVING) == 0
    assert bench.read(1, reg.PRESENT_VELOCITY) == 0


@settings(derandomize=True, deadline=None, max_examples=60)
@given(tick=st.integers(900, 3000), servo=st.sampled_from([1, 8, 9]))
def test_goal_ticks_come_back_as_present_ticks(tick: int, servo: int) -> None:
    """Of joints that carry next to nothing; the others: `test_chain_sag`."""
    bench = Bench()
    bench.torque(servo)
    assert bench.write(servo, reg.GOAL_POSITION, tick) == 0
    bench.pass_ms(2500)
    assert abs(bench.read(servo, reg.PRESENT_POSITION) - tick) <= 1


def test_indirect_data_reads_and_writes_where_its_pointers_say(bench: Bench) -> None:
    wanted = [*range(126, 136), 70, 146]
    pointers = b"".join(address.to_bytes(2, "little") for address in wanted)
    (packet,) = bench.talk(packets.write(1, 168, pointers))
    assert packet.error == 0
    (packet,) = bench.talk(packets.read(1, 224, len(wanted)))
    (direct,) = bench.talk(packets.read(1, 126, 10))
    assert packet.data[:10] == direct.data
    assert packet.data[11] == 30
    pointers = b"".join(address.to_bytes(2, "little") for address in (116, 117, 118, 119, 65))
    bench.talk(packets.write(1, 578, pointers))
    (packet,) = bench.talk(packets.write(1, 634, (2100).to_bytes(4, "little") + b"\1"))
    assert packet.error == 0
    assert bench.read(1, reg.GOAL_POSITION) == 2100
    assert bench.read(1, reg.LED) == 1
    (packet,) = bench.talk(packets.write(1, 634, (9999).to_bytes(4, "little")))
    assert packet.error == LIMIT
    (packet,) = bench.talk(packets.write(1, 168, (11).to_bytes(2, "little")))
    assert packet.error == RANGE  # EEPROM cannot be reached this way


def test_a_profile_bounds_the_speed_of_a_move(bench: Bench) -> None:
    bench.torque(1)
    assert bench.write(1, reg.PROFILE_VELOCITY, 20) == 0  # 0.48 rad/s
    start = bench.angle(0)
    bench.write(1, reg.GOAL_POSITION, 2048 + 652)  # 1 rad
    bench.pass_ms(500)
    assert bench.angle(0) - start == pytest.approx(0.24 - 0.48 * 0.06, abs=0.02)
    bench.pass_ms(2500)
    assert bench.angle(0) == pytest.approx(652 * RAD_PER_TICK, abs=2e-3)


def test_an_accelerated_profile_starts_gently_and_arrives(bench: Bench) -> None:
    bench.torque(1)
    bench.write(1, reg.PROFILE_VELOCITY, 60)
    assert bench.write(1, reg.PROFILE_ACCELERATION, 5) == 0  # 1.87 rad/s^2
    bench.write(1, reg.GOAL_POSITION, 2048 + 652)
    bench.pass_ms(100)
    assert bench.angle(0) < 0.012
    bench.pass_ms(3000)
    assert bench.read(1, reg.PRESENT_POSITION) == pytest.approx(2700, abs=1)


def test_a_timed_profile_takes_its_time(bench: Bench) -> None:
    assert bench.write(1, reg.DRIVE_MODE, reg.DRIVE_MODE_TIME_PROFILE) == 0
    bench.torque(1)
    bench.write(1, reg.PROFILE_VELOCITY, 1000)
    bench.write(1, reg.GOAL_POSITION, 2448)
    bench.pass_ms(500)
    assert bench.read(1, reg.PRESENT_POSITION) == pytest.approx(2048 + 200 - 24, abs=8)


def test_velocity_mode_turns_until_told_to_stop(bench: Bench) -> None:
    assert bench.write(6, reg.OPERATING_MODE, 1) == 0
    bench.torque(6)
    assert bench.write(6, reg.GOAL_VELOCITY, 132) == LIMIT
    assert bench.write(6, reg.GOAL_VELOCITY, -42) == 0  # 1 rad/s
    bench.pass_ms(1000)
    assert bench.angle(3) == pytest.approx(-1.0, abs=0.1)


def test_goal_current_limits_the_gripper(bench: Bench) -> None:
    bench.write(9, reg.OPERATING_MODE, 5)
    bench.torque(9)
    bench.write(9, reg.GOAL_CURRENT, 50)
    bench.write(9, reg.GOAL_POSITION, 3000)
    bench.pass_ms(1)
    assert bench.read(9, reg.PRESENT_CURRENT) == 50  # it speeds up
    bench.pass_ms(30)
    assert 10 < bench.read(9, reg.PRESENT_CURRENT) < 50  # friction of the gears
    bench.write(9, reg.GOAL_POSITION, 1000)
    bench.pass_ms(1)
    assert bench.read(9, reg.PRESENT_CURRENT) == -50
