"""`aloha setup` on emulated arms whose plugs are pulled, whose grippers are opened, whose registers are wrong."""

import contextlib
from collections.abc import Callable, Iterator
from functools import partial
from itertools import starmap
from pathlib import Path

import pytest
import yaml
from emulated import Emulated, emulated_chain
from power_cut import watch

from aloha_runtime import config
from aloha_runtime.commands import setup, setup_calibrate, setup_cameras
from aloha_runtime.commands.setup_ports import Adapter, emulated_adapters, find_ports
from aloha_runtime.commands.setup_servos import set_up_servos
from aloha_runtime.commands.setup_talk import Person, read_answers
from aloha_runtime.dynamixel import registers
from aloha_runtime.dynamixel.registers import Register
from aloha_runtime.errors import ConfigError, HardwareError
from aloha_runtime.hardware.dynamixel import DynamixelArm
from aloha_runtime.robot import KITS, RAD_PER_TICK

ARMS = ("leader_left", "leader_right", "follower_left", "follower_right")
GRIPPER = 6
OPEN = {"leader_left": 0.42, "leader_right": 0.38, "follower_left": 1.5, "follower_right": 1.4}
CLOSED = {"leader_left": -0.6, "leader_right": -0.6, "follower_left": -0.5, "follower_right": -0.5}


class Arm:
    """Where one emulated arm of a test hangs."""

    def __init__(self, folder: Path, name: str) -> None:
        self.port, self.role = folder / f"ttyUSB_{name}", name.partition("_")[0]


class Operator(Person):
    """Does with the emulated arms what is asked for by hand, and says yes to everything."""

    def __init__(self, arms: dict[str, Emulated], answers: dict[str, str] | None = None) -> None:
        super().__init__(answers, yes=True)
        self.arms = arms
        self.heard: list[str] = []
        self.hands: dict[str, Callable[[Emulated, str], object]] = {
            "unplug": lambda arm, _: arm("unplug"),
            "plug": lambda arm, _: arm("plug"),
            "open": lambda arm, name: arm("place", GRIPPER, OPEN[name]),
            "close": lambda arm, name: arm("place", GRIPPER, CLOSED[name]),
        }

    def does(self, name: str, what: str) -> None:
        verb, _, arm = name.partition(".")
        self.hands[verb](self.arms[arm], arm)

    def say(self, text: str) -> None:
        self.heard.append(text)


def put(arm: Emulated, servo: int, register: Register, value: int) -> None:
    arm("set", servo, register.address, register.size, value)


def see(arm: Emulated, servo: int, register: Register) -> int:
    value = arm("get", servo, register.address, register.size)
    return register.decode(value.to_bytes(register.size, "little"))


@pytest.fixture(scope="module")
def arms(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Emulated]]:
    """Four arms on adapters whose names tell nothing."""
    folder = tmp_path_factory.mktemp("usb")
    with contextlib.ExitStack() as stack:
        links = dict(zip(ARMS, ("ttyUSB2", "ttyUSB0", "ttyUSB3", "ttyUSB1"), strict=True))
        yield {
            name: stack.enter_context(emulated_chain(folder / link, "leader" if "leader" in name else "follower"))
            for name, link in links.items()
        }


def test_from_four_plugs_to_a_rig_file(arms: dict[str, Emulated], tmp_path: Path) -> None:
    for servo in range(1, 10):
        put(arms["leader_right"], servo, registers.BAUD_RATE, 1)  # 57600, as from the shop
    arms["leader_right"]("faults")  # heard by nobody at the other rate from now on
    put(arms["follower_left"], 6, registers.RETURN_DELAY_TIME, 250)
    put(arms["follower_left"], 2, registers.MAX_POSITION_LIMIT, 4095)
    operator = Operator(arms)
    out = tmp_path / "lab.yaml"
    setup.setup("sim", out, setup.USUAL, operator, Path(arms["leader_left"].port).parent)
    rig = config.load(str(out))
    assert rig.name == "lab"
    assert {name: arm.port for name, arm in rig.arms.items()} == {name: Path(arms[name].port).name for name in ARMS}
    assert see(arms["leader_right"], 9, registers.BAUD_RATE) == 3
    assert see(arms["follower_left"], 6, registers.RETURN_DELAY_TIME) == 0
    assert see(arms["follower_left"], 2, registers.MAX_POSITION_LIMIT) == 2867
    for arm in ARMS:
        role, _, side = arm.partition("_")
        gripper, kit = rig.gripper(role, side), KITS["aloha"].gripper(role)
        assert gripper.angle_open == pytest.approx(OPEN[arm], abs=2 * RAD_PER_TICK)
        assert gripper.angle_close == pytest.approx(CLOSED[arm], abs=2 * RAD_PER_TICK)
        assert gripper.position_close == pytest.approx(kit.position_from_angle(kit.angle_close), abs=1e-5)
        assert gripper.state_from_angle(gripper.angle_open) == pytest.approx(1.0, abs=1e-3)
        assert gripper.state_from_angle(gripper.angle_close) == pytest.approx(0.0, abs=1e-3)
    assert rig.guard is not None
    assert rig.guard.bases() == {"left": (-0.469, 0.5, 0.0), "right": (0.469, 0.5, pytest.approx(3.14159, abs=1e-5))}
    assert rig.guard.bases("leader") == {}
    assert list(tmp_path.iterdir()) == [out]  # and nothing beside it

    # A later step again, from that file.
    OPEN["follower_left"] = OPEN["follower_right"] = 1.3
    setup.setup(str(out), out, ["grippers"], Operator(arms), Path(arms["leader_left"].port).parent)
    assert config.load(str(out)).gripper("follower", "right").angle_open == pytest.approx(1.3, abs=2 * RAD_PER_TICK)


def test_a_rehearsal_needs_no_robot(tmp_path: Path) -> None:
    """As a student does it on a laptop: every step, with hands that are emulated, too."""
    out = tmp_path / "mine.yaml"
    setup.setup("sim", out, ["ports", "grippers", "zero"], Person(yes=True))
    rig = config.load(str(out))
    assert {name: arm.port for name, arm in rig.arms.items()} == {name: f"ttyDXL_{name}" for name in ARMS}
    kit = KITS["aloha"].follower_gripper
    assert rig.gripper("follower", "left").angle_open == pytest.approx(kit.angle_open, abs=2 * RAD_PER_TICK)
    assert rig.gripper("follower", "left").angle_close == pytest.approx(kit.angle_close, abs=2 * RAD_PER_TICK)


def test_a_leader_on_a_followers_plug_is_refused(arms: dict[str, Emulated]) -> None:
    settings = config.ArmConfig(port="x")
    with pytest.raises(HardwareError, match="Model_Number"):
        set_up_servos("leader_left", "leader", settings, arms["follower_left"].port, Operator(arms))


def test_a_single_new_servo_gets_its_id(tmp_path: Path) -> None:
    with emulated_chain(tmp_path / "ttyUSB0", "follower") as arm:
        put(arm, 1, registers.BAUD_RATE, 1)
        arm("faults", silent=[2, 3, 4, 5, 6, 7, 8, 9])
        operator = Operator({}, {"id.follower_left": "6"})
        settings = config.ArmConfig(port="x")
        with pytest.raises(HardwareError, match="that servo is 6 now"):
            set_up_servos("follower_left", "follower", settings, arm.port, operator)
        assert see(arm, 1, registers.ID) == 6
        assert see(arm, 1, registers.BAUD_RATE) == 3


def test_zero_is_where_the_arm_is_held(arms: dict[str, Emulated]) -> None:
    arm = arms["follower_right"]
    held = [0.05, -0.04, 0.03, 0.0, 0.02, -0.05, 0.0]
    operator = Operator(arms)
    operator.hands["zero"] = lambda emulated, _: list(starmap(partial(emulated, "place"), enumerate(held)))
    with setup_calibrate.servos_of("follower_right", "follower", arm.port, 1_000_000) as access:
        offsets = setup_calibrate.set_zero(access, "follower", operator)
        assert sorted(offsets) == [1, 2, 4, 7, 8], "what the rig file has to record"
        for servo in (1, 2, 3, 4, 5, 6, 7, 8):
            assert abs(access.read(servo, registers.PRESENT_POSITION) - 2048) <= 4, servo
        operator.hands["zero"] = lambda emulated, _: emulated("place", 0, 1.0)
        with pytest.raises(HardwareError, match=r"waist\) reads 6\d\d ticks \(5\d degrees\) from"):
            setup_calibrate.set_zero(access, "follower", operator)
    with pytest.raises(HardwareError, match=r"has Homing_Offset .* must be 0"):
        DynamixelArm("follower_right", "follower", arm.port).connect()
    driver = DynamixelArm("follower_right", "follower", arm.port, homing_offsets=offsets)
    driver.connect()
    driver.disconnect()


def test_a_zero_is_measured_recorded_and_then_accepted(tmp_path: Path) -> None:
    """A zero that is wrong by 90 degrees is no zero; one that is right in the pose is recorded as it is found."""
    arms = {name: Arm(tmp_path / "usb", name) for name in ("leader_left", "follower_left")}
    (tmp_path / "usb").mkdir()
    with contextlib.ExitStack() as stack:
        emulated = {name: stack.enter_context(emulated_chain(arm.port, arm.role)) for name, arm in arms.items()}
        operator = Operator(emulated)
        rig = yaml.safe_load(config.find("sim").read_text())
        rig["arms"] = {name: {"port": arm.port.name} for name, arm in arms.items()}
        base = tmp_path / "rig.yaml"
        base.write_text(yaml.safe_dump(rig))
        put(emulated["leader_left"], 1, registers.HOMING_OFFSET, 1024)
        put(emulated["follower_left"], 7, registers.HOMING_OFFSET, 40)
        pose = dict.fromkeys(range(6), 0.0)
        operator.hands["zero"] = lambda arm, _: [arm("place", joint, angle) for joint, angle in pose.items()]
        with pytest.raises(HardwareError, match=r"waist\) reads 1024 ticks .*else its Homing_Offset 1024 is wrong"):
            setup.setup(str(base), base, ["zero"], operator, tmp_path / "usb")
        put(emulated["leader_left"], 1, registers.HOMING_OFFSET, 0)
        pose[4] = -40 * RAD_PER_TICK  # the wrist really stands level there: its horn is mounted so
        setup.setup(str(base), base, ["zero"], operator, tmp_path / "usb")
        found = config.load(str(base)).arms
        assert abs(found["follower_left"].homing_offsets[7] - 40) <= 4
        assert 1 not in found["leader_left"].homing_offsets
        for name, arm in arms.items():
            driver = DynamixelArm(name, arm.role, str(arm.port), homing_offsets=found[name].homing_offsets)
            driver.connect()
            driver.disconnect()


def test_plugs_that_do_not_tell_are_asked_for_again_and_then_given_up() -> None:
    there = {"A1": Adapter("/dev/ttyUSB0", "A1"), "B2": Adapter("/dev/ttyUSB1", "B2")}
    operator = Operator({})
    operator.arms = dict.fromkeys(ARMS)  # type: ignore[arg-type]
    operator.hands = {"unplug": lambda *_: None, "plug": lambda *_: None}
    with pytest.raises(HardwareError, match=r"`ports\.leader_left: /dev/ttyUSB0`"):
        find_ports(["leader_left"], lambda: there, operator)
    named = Operator({}, {"ports.leader_left": "/dev/ttyUSB1", "ports.leader_right": "B2"})
    with pytest.raises(HardwareError, match="B2 was pulled for leader_left and for leader_right"):
        find_ports(["leader_left", "leader_right"], lambda: there, named)
    with pytest.raises(HardwareError, match="2 serial adapters are plugged in"):
        find_ports(list(ARMS), lambda: there, named)


def test_a_gripper_that_was_not_moved_is_noticed(arms: dict[str, Emulated]) -> None:
    operator = Operator(arms)
    operator.hands["close"] = lambda *_: None
    path = arms["leader_left"].port
    with (
        setup_calibrate.servos_of("leader_left", "leader", path, 1_000_000) as access,
        pytest.raises(HardwareError, match=r"moved by 0\.00 rad only"),
    ):
        setup_calibrate.measure_gripper(access, "leader", operator)


def test_cameras_get_the_names_that_a_person_gives(tmp_path: Path) -> None:
    there = {
        "C1": {"type": "opencv", "device": "/dev/video90", "serial": "C1"},
        "827112070893": {"type": "realsense", "serial": "827112070893"},
    }
    person = Person({"cameras.cam_high": "827112070893", "cameras.cam_low": "none", "cameras.cam_left_wrist": "C1"})
    named = setup_cameras.name_cameras(there, tmp_path / "sheet.png", person)
    assert named == {
        "cam_high": {"type": "realsense", "serial": "827112070893"},
        "cam_left_wrist": {"type": "opencv", "device": "/dev/CAM_LEFT_WRIST", "serial": "C1"},
    }


def test_answers_that_nobody_asked_for_and_questions_that_nobody_answers(tmp_path: Path) -> None:
    file = tmp_path / "answers.yaml"
    file.write_text("ports.leader_left: ttyUSB0\noverwrite: yes\n")
    assert read_answers(file) == {"ports.leader_left": "ttyUSB0", "overwrite": "yes"}
    with pytest.raises(ConfigError, match=r"add `id\.leader_left: \.\.\.`"):
        Person().ask("id.leader_left", "Which?")
    (tmp_path / "run").mkdir()
    with pytest.raises(ConfigError, match="nothing asked for overwrit"):
        setup.setup("sim", tmp_path / "x.yaml", ["cameras"], Person({"overwrit": "yes"}, yes=True), tmp_path / "run")
    assert not (tmp_path / "x.yaml").exists()
    (tmp_path / "x.yaml").write_text(yaml.safe_dump({"name": "mine"}))
    with pytest.raises(ConfigError, match="there already"):
        setup.setup("sim", tmp_path / "x.yaml", ["cameras"], Person(yes=True), tmp_path / "run")
    assert emulated_adapters(tmp_path / "run") == {}


def test_the_rig_file_survives_a_power_cut_and_a_wrong_one_never_takes_its_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = yaml.safe_load(config.find("aloha").read_text())
    cut = watch(tmp_path, monkeypatch)
    out = tmp_path / "rigs/kitchen.yaml"
    setup.write(data, "aloha", out)
    assert cut.hurried == []
    assert cut.lost() == []
    before = out.read_text()
    with pytest.raises(ConfigError):
        setup.write({**data, "unheard_of": 1}, "aloha", out)
    assert [path.name for path in out.parent.iterdir()] == ["kitchen.yaml"]
    assert out.read_text() == before
