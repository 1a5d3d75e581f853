"""The rig configuration: strict models over `configs/*.yaml`. An unknown key is an error that names file and line."""

import math
from pathlib import Path
from typing import Annotated, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from aloha_runtime import robot
from aloha_runtime.config_mistakes import explain, refuse_duplicates
from aloha_runtime.errors import ConfigError

CONFIG_DIR = Path(__file__).resolve().parent / "configs"
"""The shipped rigs: `sim`, `aloha`, `aloha2`."""
POLICY_DIR = Path(__file__).resolve().parent / "policies"
SHIPPED_POLICIES = ("demo", "insertion", "gym_transfer_cube")
"""Transfer cube on the simulated rig; insertion there; transfer cube in gym-aloha's environment (docs/results.md)."""
"""The shipped policies: `demo`."""

ArmName = Literal["leader_left", "leader_right", "follower_left", "follower_right"]
TaskName = Literal["transfer_cube", "insertion"]
EngineName = Literal[
    "auto", "eager", "onnx-fp32", "openvino-fp32", "onnx-int8", "openvino-bf16", "cuda-fp16"
]  # fmt: skip
"""Ways to run a policy (`act/engines.py`)."""
CameraName = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$")]
JointAngles = tuple[float, float, float, float, float, float]
Finite = Annotated[float, Field(allow_inf_nan=False)]


class Strict(BaseModel):
    """Unknown keys are refused: a typing mistake must not move an arm."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class ArmConfig(Strict):
    """One arm on one serial port."""

    port: str
    """Stable name of the adapter, e.g. /dev/ttyDXL_follower_left; on a simulated rig a name in the run directory."""
    baud: Literal[57600, 115200, 1_000_000, 2_000_000, 3_000_000, 4_000_000] = 1_000_000
    models: dict[int, str] = {}
    """Servo id -> model name, where this arm really has another than the kit."""


class CameraConfig(Strict):
    """One camera: a RealSense by `serial`, a USB camera by `device` (path, id or URL), or a simulated one."""

    type: Literal["realsense", "opencv", "sim"]
    serial: str | None = None
    device: str | None = None
    width: int = Field(640, ge=16, le=4096)
    height: int = Field(480, ge=16, le=4096)
    fps: int = Field(60, ge=1, le=120)
    exposure: int | None = Field(None, description="Exposure in the camera's own unit; None leaves auto-exposure on")
    focus: int | None = Field(None, description="Fixed focus (V4L2 focus_absolute); None leaves auto-focus on")
    pixel_format: Literal["MJPG", "YUYV"] = "MJPG"
    max_age_ms: float = Field(100, gt=0, le=1000)

    @model_validator(mode="after")
    def _source_is_named(self) -> "CameraConfig":
        if self.type == "realsense" and not self.serial:
            raise ValueError("a realsense camera needs `serial` (printed on the camera, or run rs-enumerate-devices)")
        if self.type == "opencv" and not self.device:
            raise ValueError("an opencv camera needs `device` (/dev/CAM_HIGH, /dev/v4l/by-id/... or a URL)")
        return self


class GripperRange(Strict):
    """The measured range of one role's grippers; what is left out comes from the kit."""

    angle_open: Finite | None = None
    angle_close: Finite | None = None
    position_open: Finite | None = None
    position_close: Finite | None = None


class LimitsConfig(Strict):
    """Limits of the gate beside the motors. `None` is the default of `control/limits.py`, where each has its reason."""

    velocity_rad_s: float | None = Field(None, gt=0, le=math.pi)
    acceleration_rad_s2: float | None = Field(None, gt=0, le=100)
    lead_rad: float | None = Field(None, gt=0, le=0.5)
    gripper_openings_s: float | None = Field(None, gt=0, le=20)
    hold_after_ms: float = Field(60, ge=20, le=500)

    def overrides(self) -> dict[str, float]:
        """What is set, by the keys of `control.limits.limits_from`."""
        return self.model_dump(exclude_none=True, exclude={"hold_after_ms"})


class RealtimeConfig(Strict):
    """Scheduling of the arms and policy loops. `require` refuses to arm without real-time priority."""

    require: bool = False
    priority: int | None = Field(50, ge=1, le=99)
    arms_cores: list[int] = []
    policy_cores: list[int] = []


class SimConfig(Strict):
    """The simulated rig; absent on a real one."""

    task: TaskName = "transfer_cube"
    seed: int | None = Field(None, ge=0, description="None: drawn anew at each start")
    clock: Literal["wall", "virtual"] = "wall"


class PolicyConfig(Strict):
    """How a checkpoint is run. `cameras` maps the policy's own camera names to the rig's: mapped nowhere else."""

    cameras: dict[str, CameraName] = {}
    ensemble: Literal["off", "paper", "newest"] = "paper"
    ensemble_m: float = Field(0.01, ge=0)
    engine: EngineName = Field("auto", description="auto: the fastest, measured at the start; in virtual time eager")
    chunk_deadline_ms: float = Field(14, gt=0, lt=20, description="The tick waits this long for its own fresh chunk")
    threads: int = Field(1, ge=1, le=64)


class TeleopConfig(Strict):
    """Teleoperation. A side that is not led stands still. `takeover`: while a policy moves the followers, the leaders
    follow them, so that a person can take over at any moment without a jump."""

    takeover: bool = False
    sides: tuple[Literal["left", "right"], ...] = ("left", "right")


class QualityConfig(Strict):
    """From when on a recorded episode is flagged (it is kept all the same)."""

    shortest_s: float = Field(1.0, ge=0)
    repeated_share: float = Field(0.01, ge=0, le=1, description="frames of a camera, or ticks, that did not come")
    camera_skew_ms: float = Field(34, gt=0, description="p99; two frames of a 60 fps camera")
    clipped_share: float = Field(0.05, ge=0, le=1, description="ticks in which the limits kept an arm off its target")
    still_s: float = Field(3.0, gt=0, description="at either end")
    missed_per_s: float = Field(2.0, ge=0, description="servo cycles without a complete answer; 1 % of them")


class RecordingConfig(Strict):
    """How demonstrations are recorded, and by what a person with both hands on the leaders gives orders."""

    codec: Literal["h264", "av1", "lossless"] = "h264"
    longest_s: float = Field(600, ge=1, description="an episode ends by itself after so long")
    lost_after_s: float = Field(1.0, gt=0, description="... and after so long without a frame or a joint state")
    keep_last_s: float = Field(30, ge=1, description="what `keep` keeps of continuous recording")
    cue: Literal["voice", "bell", "off"] = Field("voice", description="voice needs spd-say or espeak-ng, else bell")
    pedal: str | None = Field(None, description="foot pedal, e.g. /dev/input/by-id/usb-PCsensor_FootSwitch-event-kbd")
    pedal_keys: dict[int, Literal["next", "success", "failure", "discard", "undo", "pause", "keep"]] = {
        30: "success",  # KEY_A, KEY_B, KEY_C: what three-pedal switches send as they come
        48: "discard",
        46: "next",
    }
    quality: QualityConfig = QualityConfig()


class RigConfig(Strict):
    """A whole rig. See the comments in configs/aloha.yaml for every key."""

    name: str
    kit: Literal["aloha", "aloha2"]
    arms: dict[ArmName, ArmConfig]
    arms_hz: int = Field(200, ge=100, le=500)
    cameras: dict[CameraName, CameraConfig]
    leader_gripper: GripperRange = GripperRange()
    follower_gripper: GripperRange = GripperRange()
    start_pose: JointAngles = robot.START_POSE
    leader_sleep_pose: JointAngles | None = None
    follower_sleep_pose: JointAngles | None = None
    gripper_current_ma: float | None = Field(None, gt=0, le=1200)
    limits: LimitsConfig = LimitsConfig()
    realtime: RealtimeConfig = RealtimeConfig()
    policy: PolicyConfig = PolicyConfig()
    teleop: TeleopConfig = TeleopConfig()
    recording: RecordingConfig = RecordingConfig()
    sim: SimConfig | None = None

    @model_validator(mode="after")
    def _is_consistent(self) -> "RigConfig":
        # Each reason begins with the key that it is about, which tells the line.
        if not self.arms_of("follower"):
            raise ValueError("arms: no follower among them; name at least one follower")
        for camera, source in self.cameras.items():
            if (source.type == "sim") != (self.sim is not None):
                raise ValueError(f"cameras.{camera} has type {source.type!r}, but the rig is {self._kind()}")
        for theirs, ours in self.policy.cameras.items():
            if ours not in self.cameras:
                raise ValueError(
                    f"policy.cameras maps {theirs!r} to {ours!r}, no camera of this rig ({', '.join(self.cameras)})"
                )
        for role in robot.ROLES:
            self._check_pose(role, "start_pose", self.start_pose)
            self._check_pose(role, f"{role}_sleep_pose", self.sleep_pose(role))
            gripper = self.gripper(role)
            if gripper.angle_open == gripper.angle_close or gripper.position_open == gripper.position_close:
                raise ValueError(f"{role}_gripper: open and closed are the same; measure both")
        return self

    def _kind(self) -> str:
        return "simulated (it has `sim:`)" if self.sim else "real (it has no `sim:`)"

    def _check_pose(self, role: robot.Role, key: str, pose: robot.Pose) -> None:
        low, high = robot.joint_limits(role)
        for joint, angle, least, most in zip(robot.ARM_JOINTS, pose, low, high, strict=False):
            if not least <= angle <= most:
                raise ValueError(f"{key}: {joint} {angle:.3f} rad is outside the {role}'s {least:.3f}..{most:.3f} rad")

    def sleep_pose(self, role: robot.Role) -> robot.Pose:
        """Where arms of this role are parked before torque goes off (rad)."""
        own = self.leader_sleep_pose if role == "leader" else self.follower_sleep_pose
        return own or robot.KITS[self.kit].sleep_pose(role)

    def gripper(self, role: robot.Role) -> robot.Gripper:
        """The kit's gripper of this role with the rig's measured range in place of the published one."""
        measured = self.leader_gripper if role == "leader" else self.follower_gripper
        return robot.with_range(robot.KITS[self.kit].gripper(role), **measured.model_dump(exclude_none=True))

    def current_ma(self) -> float:
        """Current limit of the follower grippers (mA)."""
        return self.gripper_current_ma or robot.KITS[self.kit].gripper_current_ma

    @property
    def led_sides(self) -> tuple[robot.Side, ...]:
        """Sides on which a leader moves a follower: both are there, and `teleop.sides` names it."""
        both = self.arms_of("leader").keys() & self.arms_of("follower").keys() & set(self.teleop.sides)
        return tuple(side for side in robot.SIDES if side in both)

    def arms_of(self, role: robot.Role) -> dict[robot.Side, ArmConfig]:
        """The configured arms of a role by side, left first."""
        named = {side: self.arms.get(f"{role}_{side}") for side in robot.SIDES}  # type: ignore[call-overload]
        return {side: arm for side, arm in named.items() if arm is not None}


def find(name_or_path: str) -> Path:
    """Path of a configuration given as `sim` (shipped) or as a file; raises ConfigError naming the shipped ones."""
    path = Path(name_or_path)
    if path.suffix in (".yaml", ".yml"):
        if path.is_file():
            return path
        raise ConfigError(f"configuration {path} does not exist; give the path of an existing .yaml file")
    shipped = CONFIG_DIR / f"{name_or_path}.yaml"
    if shipped.is_file():
        return shipped
    names = ", ".join(sorted(file.stem for file in CONFIG_DIR.glob("*.yaml")))
    raise ConfigError(
        f"no configuration named {name_or_path!r}: choose one of {names}, or give the path of a .yaml file"
    )


def policy_path(name_or_path: str) -> Path:
    """Directory of a policy given as the name of a shipped one or as a path. Its reader says when it is no policy."""
    return POLICY_DIR / name_or_path if name_or_path in SHIPPED_POLICIES else Path(name_or_path)


def load(name_or_path: str) -> RigConfig:
    """Read and check a rig configuration; raises ConfigError with file, line, key and reason of each mistake."""
    path = find(name_or_path)
    try:
        text = path.read_text(encoding="utf-8")
        node = yaml.compose(text, Loader=yaml.SafeLoader)
        data = yaml.safe_load(text)
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read: {error}") from error
    except (yaml.YAMLError, ValueError, RecursionError) as error:  # a date that is none, too many brackets
        mark = getattr(error, "problem_mark", None)
        where = f":{mark.line + 1}" if mark else ""
        raise ConfigError(f"{path}{where}: not valid YAML: {getattr(error, 'problem', error)}") from error
    if not isinstance(data, dict):
        found = "it is empty" if data is None else f"found {type(data).__name__}"
        raise ConfigError(f"{path}: expected keys and values at the top; {found}")
    refuse_duplicates(path, node, set())
    try:
        return RigConfig.model_validate(data)
    except ValidationError as error:
        raise ConfigError("\n".join(explain(path, node, item) for item in error.errors())) from error
