"""ROBOTIS' own SDK as an outside judge: it drives the emulated chain over its pseudo-terminal and cannot tell."""

import termios
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import dynamixel_sdk as dxl
import pytest
import serial

from aloha_runtime.dynamixel import registers as reg
from aloha_runtime.dynamixel.packets import ALERT, StatusError
from aloha_runtime.sim.chain_control import BrownOut, GetReport, Peek, Plug, Poke, RaiseError, SetFaults, Unplug
from aloha_runtime.sim.faults import Faults
from aloha_runtime.sim.standalone import EmulatedArm

OK, TIMEOUT, CORRUPT = dxl.COMM_SUCCESS, dxl.COMM_RX_TIMEOUT, dxl.COMM_RX_CORRUPT
FOLLOWER_MODELS = dict.fromkeys(range(1, 8), 1120) | {8: 1020, 9: 1020}
LEADER_MODELS = dict.fromkeys(range(1, 8), 1020) | {8: 1060, 9: 1070}


class Sdk:
    """The SDK on one arm's port."""

    def __init__(self, arm: EmulatedArm) -> None:
        self.arm = arm
        self.port = dxl.PortHandler(str(arm.port))
        self.packet = dxl.PacketHandler(2.0)
        assert self.port.openPort()

    def write(self, servo: int, address: int, size: int, value: int) -> tuple[int, int]:
        return getattr(self.packet, f"write{size}ByteTxRx")(self.port, servo, address, value & (1 << 8 * size) - 1)

    def read(self, servo: int, address: int, size: int) -> int:
        value, result, error = getattr(self.packet, f"read{size}ByteTxRx")(self.port, servo, address)
        assert (result, error & 0x7F) == (OK, 0)
        return value

    def group(self, address: int, size: int, ids: list[int]) -> dxl.GroupSyncRead:
        group = dxl.GroupSyncRead(self.port, self.packet, address, size)
        for servo in ids:
            group.addParam(servo)
        return group

    def poke(self, servo: int, name: str, value: int) -> None:
        self.arm.ask(Poke(servo, name, value))


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """The SDK waits 34 ms at least; on a busy machine the chain's process may not run for longer."""
    monkeypatch.setattr("dynamixel_sdk.port_handler.LATENCY_TIMER", 300)


@pytest.fixture(scope="module")
def arms(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, EmulatedArm]]:
    directory = tmp_path_factory.mktemp("arms")
    with EmulatedArm(directory, "follower_left") as follower, EmulatedArm(directory, "leader_left") as leader:
        yield {"follower": follower, "leader": leader}


@pytest.fixture
def follower(arms: dict[str, EmulatedArm]) -> Iterator[Sdk]:
    """The follower as it comes from the shop."""
    arm = arms["follower"]
    arm.ask(SetFaults(Faults()))
    arm.ask(BrownOut())
    time.sleep(0.25)
    sdk = Sdk(arm)
    yield sdk
    sdk.port.closePort()


@pytest.fixture
def leader(arms: dict[str, EmulatedArm]) -> Iterator[Sdk]:
    sdk = Sdk(arms["leader"])
    yield sdk
    sdk.port.closePort()


@pytest.mark.parametrize("servo", range(1, 10))
def test_ping(follower: Sdk, servo: int) -> None:
    assert follower.packet.ping(follower.port, servo) == (FOLLOWER_MODELS[servo], OK, 0)


def test_ping_of_nobody(follower: Sdk) -> None:
    assert follower.packet.ping(follower.port, 50)[1] == TIMEOUT


def test_broadcast_ping(follower: Sdk, leader: Sdk) -> None:
    found, result = follower.packet.broadcastPing(follower.port)
    assert (result, {servo: model for servo, (model, _) in found.items()}) == (OK, FOLLOWER_MODELS)
    found, result = leader.packet.broadcastPing(leader.port)
    assert (result, {servo: tuple(data) for servo, data in found.items()}) == (
        OK,
        {servo: (model, 46) for servo, model in LEADER_MODELS.items()},
    )


@pytest.mark.parametrize(
    ("entry", "value"),
    [
        (reg.LED, 1),
        (reg.RETURN_DELAY_TIME, 10),
        (reg.POSITION_P_GAIN, 640),
        (reg.GOAL_CURRENT, -150),
        (reg.PROFILE_VELOCITY, 30_000),
        (reg.HOMING_OFFSET, -1024),
        (reg.GOAL_POSITION, 3000),
    ],
    ids=lambda item: getattr(item, "name", item),
)
def test_write_and_read_of_every_width(follower: Sdk, entry: reg.Register, value: int) -> None:
    before = follower.read(9, entry.address, entry.size)
    assert follower.write(9, entry.address, entry.size, value) == (OK, 0)
    assert follower.read(9, entry.address, entry.size) == value & (1 << 8 * entry.size) - 1
    assert follower.write(9, entry.address, entry.size, before) == (OK, 0)


def test_block_read_and_register_write(follower: Sdk) -> None:
    data, result, error = follower.packet.readTxRx(follower.port, 8, 0, 8)
    assert (result, error, data[:2], data[6:8]) == (OK, 0, [0xFC, 0x03], [46, 8])
    goal = list((2111).to_bytes(4, "little"))
    assert follower.packet.regWriteTxRx(follower.port, 8, 116, 4, goal) == (OK, 0)
    assert follower.read(8, 116, 4) != 2111
    assert follower.packet.action(follower.port, dxl.BROADCAST_ID) == OK
    assert follower.read(8, 116, 4) == 2111


@pytest.mark.parametrize("how", ["txRxPacket", "fastSyncRead"])
def test_sync_reads(follower: Sdk, how: str) -> None:
    ids = list(range(1, 10))
    group = follower.group(126, 10, ids)
    assert getattr(group, how)() == OK
    for servo in ids:
        assert group.isAvailable(servo, 132, 4)
        assert group.getData(servo, 132, 4) == follower.read(servo, 132, 4)


def test_a_fast_reply_that_looks_stuffed_comes_through(follower: Sdk) -> None:
    """FF FF FD in the data: the SDK does not unstuff fast replies, since servos do not stuff them."""
    for servo, pointer in ((1, 112), (2, 112)):
        follower.write(servo, 112, 4, 0x7DFD)
        addresses = b"".join(address.to_bytes(2, "little") for address in (98, 98, pointer, pointer + 1))
        for index in range(4):
            value = int.from_bytes(addresses[2 * index : 2 * index + 2], "little")
            assert follower.write(servo, 168 + 2 * index, 2, value) == (OK, 0)
        follower.poke(servo, "Bus_Watchdog", -1)
    group = follower.group(224, 4, [1, 2])
    for how in ("fastSyncRead", "txRxPacket"):
        assert getattr(group, how)() == OK
        assert [group.getData(servo, 224, 4) for servo in (1, 2)] == [0x7DFDFFFF] * 2


def test_sync_write_reaches_masters_and_shadows(follower: Sdk) -> None:
    group = dxl.GroupSyncWrite(follower.port, follower.packet, 116, 4)
    goals = {1: 2100, 2: 1500, 4: 2600, 9: 2300}
    for servo, goal in goals.items():
        group.addParam(servo, list(goal.to_bytes(4, "little")))
    assert group.txPacket() == OK
    assert {servo: follower.read(servo, 116, 4) for servo in (1, 2, 3, 4, 5, 9)} == goals | {3: 1500, 5: 2600}


@pytest.mark.parametrize("how", ["txRxPacket", "fastBulkRead"])
def test_bulk_reads(follower: Sdk, how: str) -> None:
    group = dxl.GroupBulkRead(follower.port, follower.packet)
    for servo, address, size in ((1, 132, 4), (6, 144, 2), (9, 146, 1)):
        assert group.addParam(servo, address, size)
    assert getattr(group, how)() == OK
    assert group.getData(1, 132, 4) == follower.read(1, 132, 4)
    assert group.getData(6, 144, 2) == 120
    assert group.getData(9, 146, 1) == 30


def test_bulk_write(follower: Sdk) -> None:
    group = dxl.GroupBulkWrite(follower.port, follower.packet)
    group.addParam(1, 65, 1, [1])
    group.addParam(4, 84, 2, [100, 0])
    assert group.txPacket() == OK
    assert (follower.read(1, 65, 1), follower.read(4, 84, 2), follower.read(5, 84, 2)) == (1, 100, 100)


def test_the_eeprom_is_locked_under_torque(follower: Sdk) -> None:
    assert follower.write(9, 64, 1, 1) == (OK, 0)
    assert follower.write(9, 11, 1, 5) == (OK, StatusError.ACCESS)
    assert follower.write(9, 64, 1, 0) == (OK, 0)
    assert follower.write(9, 11, 1, 5) == (OK, 0)
    assert follower.write(9, 11, 1, 3) == (OK, 0)


@pytest.mark.parametrize(
    ("servo", "address", "size", "value", "error"),
    [
        (9, 11, 1, 2, StatusError.DATA_RANGE),
        (9, 9, 1, 255, StatusError.DATA_RANGE),
        (9, 98, 1, 128, StatusError.DATA_RANGE),
        (9, 132, 4, 0, StatusError.ACCESS),
        (9, 66, 1, 0, StatusError.ACCESS),
        (9, 116, 2, 0, StatusError.DATA_LENGTH),
        (2, 116, 4, 800, StatusError.DATA_LIMIT),
        (9, 104, 4, 132, StatusError.DATA_LIMIT),
    ],
)
def test_refusals_carry_their_error_numbers(
    follower: Sdk, servo: int, address: int, size: int, value: int, error: StatusError
) -> None:
    assert follower.write(servo, address, size, value) == (OK, error)


def test_models_without_current_refuse_it(leader: Sdk) -> None:
    assert leader.write(9, 11, 1, 5) == (OK, StatusError.DATA_RANGE)
    assert leader.write(8, 102, 2, 5) == (OK, StatusError.ACCESS)
    assert leader.read(9, 0, 2) == 1070


def test_a_servo_moves_to_its_goal(follower: Sdk) -> None:
    assert follower.write(6, 64, 1, 1) == (OK, 0)
    start = follower.read(6, 132, 4)
    assert follower.write(6, 116, 4, start + 300) == (OK, 0)
    assert until(lambda: follower.read(6, 132, 4) == start + 300 and follower.read(6, 122, 1) == 0)


def test_the_watchdog_trips_and_is_cleared(follower: Sdk) -> None:
    assert follower.write(6, 64, 1, 1) == (OK, 0)
    assert follower.write(6, 98, 1, 5) == (OK, 0)
    time.sleep(0.3)
    assert follower.read(6, 98, 1) == 0xFF
    assert follower.write(6, 116, 4, 2100) == (OK, StatusError.DATA_RANGE)
    assert follower.write(6, 98, 1, 0) == (OK, 0)
    assert follower.write(6, 116, 4, 2100) == (OK, 0)


def test_an_overload_shows_in_every_reply_until_the_reboot(follower: Sdk) -> None:
    assert follower.write(9, 64, 1, 1) == (OK, 0)
    follower.arm.ask(RaiseError(9, 0x20))
    value, result, error = follower.packet.read1ByteTxRx(follower.port, 9, 70)
    assert (value, result, error) == (0x20, OK, ALERT)
    assert follower.read(9, 64, 1) == 0
    assert follower.write(9, 64, 1, 1)[1] & 0x7F == StatusError.ACCESS
    assert follower.packet.reboot(follower.port, 9)[0] == OK
    assert until(lambda: follower.packet.ping(follower.port, 9)[1] == OK)
    assert follower.packet.read1ByteTxRx(follower.port, 9, 70) == (0, OK, 0)
    assert follower.write(9, 64, 1, 1) == (OK, 0)


def test_clear_turns(follower: Sdk) -> None:
    assert follower.packet.clearMultiTurn(follower.port, 1) == (OK, 0)


def test_baud_rates_have_to_agree(follower: Sdk) -> None:
    assert follower.write(9, 8, 1, 6) == (OK, 0)
    assert follower.packet.ping(follower.port, 9)[1] == TIMEOUT
    assert follower.port.setBaudRate(4_000_000)
    assert follower.packet.ping(follower.port, 9) == (1020, OK, 0)
    assert follower.packet.ping(follower.port, 8)[1] == TIMEOUT
    assert follower.write(9, 8, 1, 3) == (OK, 0)
    assert follower.port.setBaudRate(1_000_000)
    assert follower.packet.ping(follower.port, 9) == (1020, OK, 0)


def test_factory_reset_and_back(follower: Sdk) -> None:
    assert follower.packet.factoryReset(follower.port, 8, 0x01) == (OK, 0)
    assert follower.port.setBaudRate(57_600)
    assert until(lambda: follower.packet.ping(follower.port, 8)[1] == OK)
    assert follower.read(8, 9, 1) == 250
    assert follower.write(8, 9, 1, 0) == (OK, 0)
    assert follower.write(8, 44, 4, 131) == (OK, 0)
    assert follower.write(8, 8, 1, 3) == (OK, 0)
    assert follower.port.setBaudRate(1_000_000)
    assert follower.packet.ping(follower.port, 8) == (1020, OK, 0)


def test_lost_and_damaged_replies_are_noticed(follower: Sdk) -> None:
    follower.arm.ask(SetFaults(Faults(silent=[6])))
    assert follower.packet.ping(follower.port, 6)[1] == TIMEOUT
    assert follower.packet.ping(follower.port, 7)[1] == OK
    follower.arm.ask(SetFaults(Faults(drop=1.0)))
    assert follower.packet.ping(follower.port, 7)[1] == TIMEOUT
    follower.arm.ask(SetFaults(Faults(corrupt=1.0, seed=3)))
    results = {follower.packet.read4ByteTxRx(follower.port, 7, 132)[1] for _ in range(5)}
    assert OK not in results
    follower.arm.ask(SetFaults(Faults()))
    assert follower.packet.ping(follower.port, 7)[1] == OK


def test_unplugged_and_plugged_again(follower: Sdk) -> None:
    tick = follower.arm.ask(Peek(7, "Present_Position")).value
    follower.arm.ask(Unplug())
    assert not follower.arm.port.exists()
    with pytest.raises((termios.error, serial.SerialException, OSError)):
        ping_often(follower)
    follower.arm.ask(Plug())
    again = Sdk(follower.arm)
    assert again.read(7, 132, 4) == tick
    again.port.closePort()


def test_old_firmware_stays_silent_on_fast_reads(tmp_path: Path) -> None:
    with EmulatedArm(tmp_path, "follower_right", firmware=44) as arm:
        sdk = Sdk(arm)
        group = sdk.group(132, 4, [1, 2])
        assert group.fastSyncRead() == TIMEOUT
        assert group.txRxPacket() == OK
        sdk.port.closePort()


def test_the_monitor_counts_what_the_sdk_wrote(follower: Sdk) -> None:
    assert follower.packet.reboot(follower.port, 1) == (OK, 0)  # the monitor then knows of no goal
    time.sleep(0.25)
    assert follower.read(1, 132, 4) == 2048
    follower.arm.ask(GetReport(reset=True))
    assert follower.write(1, 64, 1, 1) == (OK, 0)
    assert follower.write(1, 116, 4, 4090) == (OK, 0)
    report = follower.arm.ask(GetReport()).report
    assert report is not None
    assert report.last_goal == {1: 4090}
    assert report.counts == {"position": 1, "lead": 1}


def ping_often(sdk: Sdk) -> None:
    for _ in range(3):
        sdk.packet.ping(sdk.port, 7)


def until(condition: Callable[[], bool]) -> bool:
    """Whether it comes true within ten seconds."""
    give_up = time.monotonic() + 10
    while not condition():
        if time.monotonic() > give_up:
            return False
    return True
