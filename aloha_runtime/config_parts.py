"""The parts of a rig file, one strict model each; `config.py` puts them together."""

import math
from typing import Annotated, Literal

from pydantic import Field, model_validator

from aloha_runtime.config_cameras import CameraControls, PictureStage
from aloha_runtime.config_joints import FollowerJoint, JointLimit
from aloha_runtime.config_strict import Strict
from aloha_runtime.config_strings import (
    ArmPort,
    CameraName,
    DevicePath,
    Folder,
    ModelName,
    PolicyCamera,
    UsbSerial,
    VideoSource,
)

ArmName = Literal["leader_left", "leader_right", "follower_left", "follower_right"]
TaskName = Literal["transfer_cube", "insertion"]
EngineName = Literal[
    "auto", "eager", "onnx-fp32", "openvino-fp32", "onnx-int8", "openvino-bf16", "cuda-fp16"
]  # fmt: skip
"""Ways to run a policy (`act/engines.py`)."""
JointAngles = tuple[float, float, float, float, float, float]
Finite = Annotated[float, Field(allow_inf_nan=False)]
GripperAngle = Annotated[float, Field(ge=-3.1, le=3.1)]
"""Within one turn of the servo: position control reaches no further."""
ServoId = Annotated[int, Field(ge=1, le=9)]
HomingOffset = Annotated[int, Field(ge=-1024, le=1024)]
"""Ticks; a servo ignores more in position control."""


class GripperRange(Strict):
    """The range measured on one arm: motor angles (rad) and finger positions (m) at both ends; what is left out comes
    from the kit."""

    angle_open: GripperAngle | None = None
    angle_close: GripperAngle | None = None
    position_open: Finite | None = None
    position_close: Finite | None = None


class ArmConfig(Strict):
    """One arm on one serial port."""

    port: ArmPort
    """Stable name of the adapter, e.g. /dev/ttyDXL_follower_left; on a simulated rig a name in the run directory."""
    serial: UsbSerial | None = None
    """Serial number of the adapter, from which `aloha install` writes the udev rule that gives it its name."""
    baud: Literal[57600, 115200, 1_000_000, 2_000_000, 3_000_000, 4_000_000] = 1_000_000
    models: dict[int, ModelName] = {}
    """Servo id -> model name, where this arm really has another than the kit."""
    gripper: GripperRange = GripperRange()
    homing_offsets: dict[ServoId, HomingOffset] = {}
    """Servo id -> Homing_Offset that `aloha setup` wrote or found right in the zero pose; what is not here must be 0,
    and a shadow's is near it. Anything else is a wrong zero, and the arm is refused."""


class CameraConfig(CameraControls, PictureStage):
    """One camera: a RealSense by `serial`, a USB camera by `device` (path, id or URL), or a simulated one. With a
    `serial` as well, `aloha install` writes the udev rule that gives a USB camera its device name."""

    type: Literal["realsense", "opencv", "sim"]
    serial: UsbSerial | None = None
    device: VideoSource | None = None
    width: int = Field(640, ge=16, le=4096)
    height: int = Field(480, ge=16, le=4096)
    fps: int = Field(60, ge=1, le=120)
    pixel_format: Literal["MJPG", "YUYV"] = "MJPG"
    max_age_ms: float = Field(100, gt=0, le=1000)
    recorded_only: bool = Field(False, description="no policy is trained on it, and none is given it")

    @property
    def shape(self) -> tuple[int, int]:
        """(height, width) of the pictures that others get: after the stage."""
        return self.result(self.height, self.width)

    @model_validator(mode="after")
    def _fits_together(self) -> "CameraConfig":
        self.result(self.height, self.width)
        stated = [key for key in self.chosen() if key not in ("exposure", "focus")]
        if self.type == "sim" and stated:
            raise ValueError(f"a simulated camera has no controls: leave `{stated[0]}` out")
        if self.type == "realsense" and self.focus is not None:
            raise ValueError("a realsense camera has a fixed lens: leave `focus` out")
        return self

    @model_validator(mode="after")
    def _source_is_named(self) -> "CameraConfig":
        if self.type == "realsense" and not self.serial:
            raise ValueError("a realsense camera needs `serial` (printed on the camera, or run rs-enumerate-devices)")
        if self.type == "opencv" and not self.device:
            raise ValueError("an opencv camera needs `device` (/dev/CAM_HIGH, /dev/v4l/by-id/... or a URL)")
        return self


FULL_DRIVE_RAD = 0.217
"""Goal minus position at which a servo applies its full voltage: 885 units of PWM at the standard P gain of 800."""

ARM_LEAD_RAD = 0.24
"""Goal minus present position, where more of it adds no force: FULL_DRIVE_RAD, and the 0.025 rad by which a joint moves
on at 2.5 rad/s in the two cycles of 5 ms that a reading may be old. Less of it takes away the force that carries a load
(0.10 rad let a stretched arm with 0.5 kg sink); more of it only adds to the way that an arm travels after a death."""

MOST_SAG_RAD = 0.15
"""The most that a joint sags under its goal: the shoulder of a stretched arm with 0.75 kg in its hand, 0.138 rad. A
lead below it lets arms sink under what they carry, a leader's elbow (0.066 rad) already under its own weight."""


class LimitsConfig(Strict):
    """Limits of the gate beside the motors. `None` is the default of `control/limits.py`, where each has its reason."""

    velocity_rad_s: float | None = Field(None, gt=0, le=math.pi)
    acceleration_rad_s2: float | None = Field(None, gt=0, le=100)
    lead_rad: float | None = Field(None, gt=0, le=0.5)
    gripper_openings_s: float | None = Field(None, gt=0, le=20)
    hold_after_ms: float = Field(60, ge=20, le=500)
    joints: dict[FollowerJoint, JointLimit] = {}

    def overrides(self) -> dict[str, float]:
        """What is set for all joints, by the keys of `control.limits.limits_from`."""
        return self.model_dump(exclude_none=True, exclude={"hold_after_ms", "joints"})


class TighterLimits(Strict):
    """Limits below the rig's own, in every mode; one that is above them is refused (`control.limits.tightened`).
    The lowest values still let the arms reach their poses within the time that ramps are given."""

    velocity_rad_s: float | None = Field(None, ge=0.2, allow_inf_nan=False)
    acceleration_rad_s2: float | None = Field(None, ge=1, allow_inf_nan=False)
    lead_rad: float | None = Field(
        None, ge=MOST_SAG_RAD, allow_inf_nan=False, description="with less an arm sinks under what it carries"
    )
    gripper_openings_s: float | None = Field(None, ge=0.2, allow_inf_nan=False)

    def overrides(self) -> dict[str, float]:
        """What is set, by the keys of `control.limits.limits_from`."""
        return self.model_dump(exclude_none=True)

    def and_also(self, other: "TighterLimits") -> "TighterLimits":
        """The lower of both in everything."""
        ours, theirs = self.overrides(), other.overrides()
        return TighterLimits(**{key: min(ours.get(key, math.inf), theirs.get(key, math.inf)) for key in ours | theirs})


class DeployConfig(Strict):
    """How carefully a policy is run. Everything here only tightens, and so do the options of `aloha deploy`."""

    speed: float = Field(1.0, ge=0.1, le=1, description="of the motion, as trained: 0.5 takes twice the time")
    max_duration_s: float | None = Field(None, gt=0, description="HOLD after so long of a policy's motion")
    shadow: bool = Field(False, description="the policy only says what it would do; nothing obeys it")
    limits: TighterLimits = TighterLimits()

    def and_also(self, other: "DeployConfig") -> "DeployConfig":
        """The more careful of both in everything."""
        longest = [seconds for seconds in (self.max_duration_s, other.max_duration_s) if seconds is not None]
        return DeployConfig(
            speed=min(self.speed, other.speed),
            max_duration_s=min(longest, default=None),
            shadow=self.shadow or other.shadow,
            limits=self.limits.and_also(other.limits),
        )


BasePlace = tuple[Finite, Finite, Finite]
"""x, y (m) and heading (rad) of an arm's base on the table."""


class GuardConfig(Strict):
    """Where arms and table are; with it in the rig file followers are kept apart from each other and from the table
    (`control/guard.py`). Ramps are planned by it with or without (`control/ramp.py`).

    The followers' bases are those of both published kits: 0.938 m between them, face to face (gym-aloha's model of the
    ALOHA simulation that came with ACT, and `aloha.xml` in MuJoCo Menagerie for ALOHA 2). Where the leaders stand is
    published for neither, so each of theirs has to do with its own table only, until both are given.
    """

    minimum_distance_m: float = Field(0.02, gt=0, le=0.2)
    left_base: BasePlace = (-0.469, 0.5, 0.0)
    right_base: BasePlace = (0.469, 0.5, math.pi)
    table_m: float | None = Field(0.0, ge=-1, le=0.3, description="of its top above the followers' feet; null: none")
    leader_left_base: BasePlace | None = None
    leader_right_base: BasePlace | None = None
    leader_table_m: float | None = Field(0.0, ge=-1, le=0.3, description="... above the leaders' feet")

    @model_validator(mode="after")
    def _leaders_are_both_known(self) -> "GuardConfig":
        if (self.leader_left_base is None) != (self.leader_right_base is None):
            raise ValueError("leader_left_base: give both bases of the leaders, or neither")
        return self

    def bases(self, role: Literal["leader", "follower"] = "follower") -> dict[Literal["left", "right"], BasePlace]:
        """By side; empty where nobody has said."""
        if role == "follower":
            return {"left": self.left_base, "right": self.right_base}
        if self.leader_left_base is None or self.leader_right_base is None:
            return {}
        return {"left": self.leader_left_base, "right": self.leader_right_base}

    def table(self, role: Literal["leader", "follower"]) -> float | None:
        """Height of the table's top above the feet of a role's arms (m); None where there is none."""
        return self.table_m if role == "follower" else self.leader_table_m


class RealtimeConfig(Strict):
    """Scheduling of the arms and policy loops. The arms are not armed without real-time priority unless `require` says
    false."""

    require: bool = True
    priority: int | None = Field(50, ge=1, le=99)
    arms_cores: list[int] = []
    policy_cores: list[int] = []


class SimConfig(Strict):
    """The simulated rig; absent on a real one."""

    task: TaskName = "transfer_cube"
    seed: int | None = Field(None, ge=0, description="None: a random one at each start")
    clock: Literal["wall", "virtual"] = "wall"


class PolicyConfig(Strict):
    """How a checkpoint is run. `cameras` maps the policy's own camera names to the rig's: mapped nowhere else."""

    cameras: dict[PolicyCamera, CameraName] = {}
    ensemble: Literal["checkpoint", "off", "paper", "newest"] = Field(
        "checkpoint", description="checkpoint: its own temporal_ensemble_coeff and n_action_steps"
    )
    ensemble_m: float | None = Field(None, allow_inf_nan=False, description="of paper, newest; null: its own or 0.01")
    n_action_steps: int | None = Field(None, ge=1, description="of off; null: the checkpoint's own")
    device: str = Field("auto", pattern=r"^(auto|cpu|cuda(:[0-9]{1,2})?)$", description="auto: a GPU if there is one")
    lead_ms: float | None = Field(
        None,
        ge=0,
        le=100,
        description="how far ahead of its tick an action is taken; null: by control/delay.py",
    )
    engine: EngineName = Field("auto", description="auto: the fastest, measured at the start; in virtual time eager")
    chunk_deadline_ms: float = Field(14, gt=0, lt=20, description="The tick waits this long for its own fresh chunk")
    threads: int = Field(1, ge=1, le=64)
    remote_max_age_ms: float = Field(
        400,
        ge=100,
        le=2000,
        description="HOLD when a remote policy's newest answer is for an observation older than this",
    )

    @model_validator(mode="after")
    def _counts_in_its_mode(self) -> "PolicyConfig":
        if self.ensemble_m is not None and self.ensemble not in ("paper", "newest"):
            raise ValueError("ensemble_m: counts with `ensemble: paper` or `newest` only; set one, or leave it out")
        if self.n_action_steps is not None and self.ensemble != "off":
            raise ValueError("n_action_steps: counts with `ensemble: off` only; set that, or leave it out")
        return self


class TeleopConfig(Strict):
    """Teleoperation. A side that is not led stands still. `takeover`: while a policy moves the followers, the leaders
    follow them, so that a person can take over at any moment without a jump. `gravity_compensation`: the share of the
    leaders' weight that their servos carry while a person moves them (`control/gravity.py`)."""

    takeover: bool = False
    sides: tuple[Literal["left", "right"], ...] = ("left", "right")
    gravity_compensation: float = Field(0, ge=0, le=1.2, description="0: off, 1: all; above 1 an arm let go may rise")


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
    pedal: DevicePath | None = Field(None, description="such as /dev/input/by-id/usb-PCsensor_FootSwitch-event-kbd")
    pedal_keys: dict[int, Literal["next", "success", "failure", "discard", "undo", "pause", "keep"]] = {
        30: "success",  # KEY_A, KEY_B, KEY_C: what three-pedal switches send as they come
        48: "discard",
        46: "next",
    }
    quality: QualityConfig = QualityConfig()


class FlightConfig(Strict):
    """The flight recorder: how much of the past it keeps, and what its logs may take. `flight: null` runs without."""

    minutes: float = Field(5, ge=0.5, le=60, description="before what happened; less where `memory_mb` is not enough")
    after_s: float = Field(5, ge=0, le=60, description="... and so long after it")
    memory_mb: int = Field(128, ge=16, le=4096, description="five minutes of a rig with four cameras take about 70")
    disk_mb: int = Field(4096, ge=64, le=1_000_000, description="of all logs; beyond it the oldest go")
    thumbnails_hz: float = Field(1, ge=0, le=5, description="small pictures of each camera; 0: none")
    folder: Folder | None = Field(None, description="default: /var/lib/aloha/logs, or ~/.local/state/aloha/logs")
