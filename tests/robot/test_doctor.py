"""Faults put into emulated servos, a made-up /sys and exchanged cameras: doctor names each, with the fix."""

from collections.abc import Iterator
from pathlib import Path

import msgspec
import numpy as np
import pytest
from stop_tools import Pedal

from aloha_runtime import config
from aloha_runtime.commands import doctor, snapshots
from aloha_runtime.commands.doctor_servos import check_arm
from aloha_runtime.commands.doctor_stop import check_stop_input
from aloha_runtime.commands.doctor_usb import check_usb
from aloha_runtime.commands.findings import Finding, Level
from aloha_runtime.config import ArmConfig, CameraConfig, StopInputConfig
from aloha_runtime.config_parts import SimConfig
from aloha_runtime.data import DatasetWriter
from aloha_runtime.errors import AlohaError
from aloha_runtime.hardware.base import StopSeen
from aloha_runtime.hardware.stop_input import StopInput
from aloha_runtime.sim.chain_control import Peek, Poke, RaiseError, SetFaults
from aloha_runtime.sim.faults import Faults
from aloha_runtime.sim.standalone import EmulatedArm

ARM = "follower_left"
CONFIG = ArmConfig(port="ttyDXL_follower_left")


@pytest.fixture(scope="module")
def arm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmulatedArm]:
    with EmulatedArm(tmp_path_factory.mktemp("run"), ARM) as running:
        mend(look(running))  # pairs agree
        yield running


def look(arm: EmulatedArm) -> dict[str, Finding]:
    return {finding.check: finding for finding in check_arm(ARM, "follower", CONFIG, str(arm.port))}


def mend(found: dict[str, Finding]) -> None:
    for finding in found.values():
        assert finding.mend is not None, finding
        finding.mend()


def test_an_arm_as_it_must_be_is_one_line(arm: EmulatedArm) -> None:
    assert [(check, f.level) for check, f in look(arm).items()] == [("arms.follower_left", Level.OK)]


@pytest.mark.parametrize(
    ("servo", "register", "wrong", "level", "asks"),
    [
        (6, "Return_Delay_Time", 250, Level.FAIL, False),
        (2, "Max_Position_Limit", 4095, Level.FAIL, True),
        (7, "Drive_Mode", 0, Level.FAIL, True),
        (3, "Secondary_ID", 255, Level.FAIL, True),
        (5, "Homing_Offset", 300, Level.FAIL, False),
        (1, "Homing_Offset", 1024, Level.FAIL, True),
        (8, "Shutdown", 0, Level.FAIL, False),
        (1, "Startup_Configuration", 1, Level.FAIL, False),
        (9, "Temperature_Limit", 100, Level.FAIL, False),
        (6, "PWM_Limit", 100, Level.FAIL, False),
    ],
)
def test_a_wrong_register_is_found_and_mended(
    arm: EmulatedArm, servo: int, register: str, wrong: int, level: Level, asks: bool
) -> None:
    before = arm.ask(Peek(servo, register)).value
    arm.ask(Poke(servo, register, wrong))
    found = look(arm)
    finding = found[f"arms.follower_left.servo_{servo}.{register}"]
    assert finding.level is level
    assert bool(finding.risk) is asks
    mend(found)
    assert (
        abs(arm.ask(Peek(servo, register)).value - before) <= 2
    )  # a pair agrees within the exactness of a tick or two
    assert list(look(arm)) == ["arms.follower_left"]


@pytest.mark.parametrize(
    ("servo", "register", "wrong", "usual", "says"),
    [
        (9, "Velocity_Limit", 200, 131, "kits have 131"),
        (1, "Firmware_Version", 40, 46, "before 45"),
        (6, "Status_Return_Level", 1, 2, "must be 2"),
    ],
)
def test_what_only_a_person_mends_is_found(
    arm: EmulatedArm, servo: int, register: str, wrong: int, usual: int, says: str
) -> None:
    arm.ask(Poke(servo, register, wrong))
    try:
        found = look(arm)
    finally:
        arm.ask(Poke(servo, register, usual))
    (finding,) = found.values()
    assert says in finding.value
    assert finding.fix
    assert finding.mend is None


def test_a_wrong_zero_is_the_masters_and_the_shadow_is_not_blamed(arm: EmulatedArm) -> None:
    """Of a shoulder whose Homing_Offset is 512 the master is named; the shadow stays as it is."""
    shadow = arm.ask(Peek(3, "Homing_Offset")).value
    arm.ask(Poke(2, "Homing_Offset", 512))
    found = look(arm)
    (finding,) = found.values()
    assert finding.check == "arms.follower_left.servo_2.Homing_Offset"
    assert finding.value.startswith("512, must be 0: it turns the joint's zero")
    assert "2 Homing_Offset 0`" in finding.fix
    assert "decides where and which way it may turn" in finding.risk
    mend(found)
    if "arms.follower_left" not in (found := look(arm)):  # firmware that passes the write on to the shadow
        mend(found)
    assert list(look(arm)) == ["arms.follower_left"]
    assert abs(arm.ask(Peek(3, "Homing_Offset")).value - shadow) <= 2
    arm.ask(Poke(3, "Homing_Offset", 512))  # an earlier start aligned it to a master that was wrong then
    arm.ask(Poke(2, "Homing_Offset", 512))
    recorded = CONFIG.model_copy(update={"homing_offsets": {2: 512}})
    found = {finding.check: finding for finding in check_arm(ARM, "follower", recorded, str(arm.port))}
    arm.ask(Poke(2, "Homing_Offset", 0))
    arm.ask(Poke(3, "Homing_Offset", shadow))
    finding = found["arms.follower_left.servo_3.Homing_Offset"]
    assert "either the zero of the master is wrong, or the horn of one of both" in finding.value
    assert finding.mend is None


def test_another_model_than_the_rig_file_says_is_found(arm: EmulatedArm) -> None:
    believed = ArmConfig(port=CONFIG.port, models={4: "XM430-W350"})
    (finding,) = check_arm(ARM, "follower", believed, str(arm.port))
    assert finding.check == "arms.follower_left.servo_4.Model_Number"
    assert finding.value == "1120 (XM540-W270), must be 1020 (XM430-W350)"
    assert "models: {4: XM540-W270}" in finding.fix


def test_a_silent_servo_an_error_and_another_rate_are_named(arm: EmulatedArm) -> None:
    arm.ask(SetFaults(Faults(silent=[7])))
    assert "wrist_angle does not answer" in look(arm)["arms.follower_left.servo_7"].value
    arm.ask(SetFaults(Faults()))
    arm.ask(RaiseError(1, 0x20))
    assert look(arm)["arms.follower_left.servo_1.Hardware_Error_Status"].value == "overload"
    arm.ask(Poke(1, "Hardware_Error_Status", 0))
    for servo in range(1, 10):
        arm.ask(Poke(servo, "Baud_Rate", 1))
    assert "answer at 57600 baud" in look(arm)["arms.follower_left.baud"].value
    for servo in range(1, 10):
        arm.ask(Poke(servo, "Baud_Rate", 3))


def test_the_whole_command_mends_what_it_may_and_says_what_is_left(
    arm: EmulatedArm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    rig = config.load("sim")
    rig = rig.model_copy(update={"arms": {ARM: rig.arms[ARM]}})
    monkeypatch.setattr(config, "load", lambda _: rig)
    arm.ask(Poke(6, "Return_Delay_Time", 250))
    arm.ask(Poke(2, "Max_Position_Limit", 4095))
    asked: list[str] = []

    def confirm(question: str) -> bool:
        asked.append(question)
        return False

    report = tmp_path / "report.json"
    with pytest.raises(AlohaError, match="1 of"):
        doctor.doctor("sim", out=tmp_path / "sheet.png", fix=True, json=report, run_dir=arm.run_dir, confirm=confirm)
    assert "Max_Position_Limit" in asked[0]
    assert arm.ask(Peek(6, "Return_Delay_Time")).value == 0
    arm.ask(Poke(2, "Max_Position_Limit", 2867))
    told = msgspec.json.decode(report.read_bytes())
    assert (told["schema"], told["ok"]) == (1, False)
    by_check = {finding["check"]: finding for finding in told["findings"]}
    assert set(by_check["python"]) == {"check", "level", "value", "fix", "mended"}
    assert by_check["arms.follower_left.servo_6.Return_Delay_Time"]["mended"]
    assert not by_check["arms.follower_left.servo_2.Max_Position_Limit"]["mended"]
    assert (tmp_path / "sheet.png").read_bytes().startswith(b"\x89PNG")
    assert "aloha servo write" in capsys.readouterr().out


def test_a_physical_stop_is_tried_as_the_supervisor_reads_it(tmp_path: Path) -> None:
    rig = config.load("aloha")
    assert [finding.level for finding in check_stop_input(rig)] == [Level.OK]
    pedal = Pedal(tmp_path / "pedal", plugged=False)
    rig = rig.model_copy(update={"stop_input": StopInputConfig(device=str(pedal.path))})
    (finding,) = check_stop_input(rig)
    assert finding.level is Level.FAIL
    assert finding.value == f"{pedal.path} does not exist"
    assert finding.fix.startswith("plug it in")
    pedal.plug()
    (finding,) = check_stop_input(rig)
    assert finding.level is Level.OK
    assert f"any key of {pedal.path} is there" in finding.value


def test_a_stop_that_is_pressed_is_told_before_somebody_wants_to_arm(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(StopInput, "look", lambda self, now_ns: StopSeen(1, held=True, missing=""))
    rig = config.load("aloha")
    port = StopInputConfig(port="/dev/serial/by-id/usb-x-port0")
    (finding,) = check_stop_input(rig.model_copy(update={"stop_input": port}))
    assert finding.level is Level.WARN
    assert finding.value == "CTS of /dev/serial/by-id/usb-x-port0: its circuit is open, so arming is refused"


def usb_device(sys: Path, bus: int, name: str, serial: str, speed: int) -> Path:
    """One device below the root hub of a bus, as /sys shows it."""
    hub = sys / f"devices/pci/usb{bus}"
    device = hub / name
    device.mkdir(parents=True)
    for folder, values in (
        (hub, {"busnum": bus, "speed": 480 if bus == 1 else 5000}),
        (device, {"busnum": bus, "speed": speed, "serial": serial, "product": "thing"}),
    ):
        for key, value in values.items():
            (folder / key).write_text(f"{value}\n")
    return device


def connect(sys: Path, kind: str, name: str, device: Path, **files: str) -> None:
    """A kernel device of a USB device: its class folder with a `device` link, and some files."""
    (sys / "class" / kind / name).mkdir(parents=True)
    interface = device / f"{device.name}:1.0"
    interface.mkdir()
    (sys / "class" / kind / name / "device").symlink_to(interface)
    for key, text in files.items():
        place = interface if key == "latency_timer" else sys / "class" / kind / name
        (place / key).write_text(text)


def test_usb_serials_latency_and_bandwidth(tmp_path: Path) -> None:
    arms = {
        ARM: ArmConfig(port="/dev/ttyUSB7", serial="FT1"),
        "leader_left": ArmConfig(port="/dev/ttyUSB8", serial="F2"),
    }
    yuyv = CameraConfig(type="opencv", device="/dev/video70", serial="CAM0", pixel_format="YUYV")
    cameras = {"cam_high": yuyv, "cam_low": yuyv.model_copy(update={"device": "/dev/video71"})}
    rig = config.load("aloha").model_copy(update={"arms": arms, "cameras": cameras})
    connect(tmp_path, "tty", "ttyUSB7", usb_device(tmp_path, 1, "1-1", "FT1", 12), latency_timer="16\n")
    connect(tmp_path, "tty", "ttyUSB8", usb_device(tmp_path, 1, "1-2", "F9", 12), latency_timer="1\n")
    connect(tmp_path, "video4linux", "video70", usb_device(tmp_path, 1, "1-3", "CAM0", 480), index="0\n")
    connect(tmp_path, "video4linux", "video71", usb_device(tmp_path, 1, "1-4", "CAM0", 480), index="0\n")
    found = {finding.check: finding for finding in check_usb(rig, lambda name: arms[name].port, tmp_path)}
    assert found["arms.leader_left.latency_timer"].level is Level.OK
    assert found["arms.leader_left.serial"].level is Level.FAIL
    assert found["arms.follower_left.serial"].level is Level.OK
    assert "614 of 384" in found["usb.bus_1"].value
    assert found["usb.bus_1"].level is Level.FAIL  # two YUYV cameras at 60 fps: 295 Mb/s each
    slow = found["arms.follower_left.latency_timer"]
    assert slow.level is Level.FAIL
    assert slow.mend is not None
    slow.mend()
    assert (tmp_path / "class/tty/ttyUSB7/device/latency_timer").read_text() == "1\n"


def test_exchanged_wrist_cameras_are_found_by_their_pictures(tmp_path: Path) -> None:
    names = ("cam_high", "cam_left_wrist", "cam_right_wrist")
    rig = config.load("sim")
    rig = rig.model_copy(update={"cameras": dict.fromkeys(names, rig.cameras["cam_high"])})
    pictures, found = snapshots.take(rig, list(names))
    assert all(finding.level is Level.OK for finding in found)
    random = np.random.default_rng(0)
    with DatasetWriter.create(tmp_path / "d", vectors={"action": ["a"]}, cameras=dict.fromkeys(names, (120, 160))) as w:
        for seed in (1, 2):  # darker, noisier, and with the cube elsewhere
            other = rig.model_copy(update={"sim": SimConfig(seed=seed)})
            then, _ = snapshots.take(other, list(names))
            seen = {name: np.clip(p * 0.7 + random.normal(0, 8, p.shape), 0, 255) for name, p in then.items()}
            frame = {f"observation.images.{name}": picture.astype(np.uint8) for name, picture in seen.items()}
            w.add_frame({"action": [0.0], **frame})
            w.save_episode("t")
    right = {finding.check: finding for finding in snapshots.compare(pictures, tmp_path / "d")}
    assert {finding.level for finding in right.values()} == {Level.OK}
    exchanged = dict(pictures, cam_left_wrist=pictures["cam_right_wrist"], cam_right_wrist=pictures["cam_left_wrist"])
    wrong = {finding.check: finding for finding in snapshots.compare(exchanged, tmp_path / "d")}
    assert wrong["cameras.cam_left_wrist.dataset"].level is Level.FAIL
    assert "like cam_right_wrist" in wrong["cameras.cam_left_wrist.dataset"].value
    assert wrong["cameras.cam_high.dataset"].level is Level.OK
    covered = dict(pictures, cam_high=random.integers(0, 30, (120, 160, 3)).astype(np.uint8))
    moved = {finding.check: finding for finding in snapshots.compare(covered, tmp_path / "d")}
    assert moved["cameras.cam_high.dataset"].level is Level.WARN
