"""The rig configuration: strict models over `configs/*.yaml`. An unknown key is an error that names file and line."""

from pathlib import Path
from typing import Literal, TypeVar

import yaml
from pydantic import Field, ValidationError, model_validator

from aloha_runtime import robot
from aloha_runtime.config_mistakes import explain, line_of, refuse_duplicates
from aloha_runtime.config_parts import (
    ARM_LEAD_RAD,
    FULL_DRIVE_RAD,
    ArmConfig,
    ArmName,
    CameraConfig,
    DeployConfig,
    EngineName,
    FlightConfig,
    GuardConfig,
    JointAngles,
    LimitsConfig,
    PolicyConfig,
    QualityConfig,
    RealtimeConfig,
    RecordingConfig,
    SimConfig,
    TaskName,
    TeleopConfig,
    TighterLimits,
)
from aloha_runtime.config_stop import StopInputConfig
from aloha_runtime.config_strict import Strict
from aloha_runtime.config_strings import SIMULATED_PORT, CameraName, RigName
from aloha_runtime.damaged import reads
from aloha_runtime.errors import ConfigError

__all__ = [
    "CONFIG_DIR",
    "SHIPPED_POLICIES",
    "ArmConfig",
    "CameraConfig",
    "DeployConfig",
    "EngineName",
    "FlightConfig",
    "LimitsConfig",
    "QualityConfig",
    "RecordingConfig",
    "RigConfig",
    "StopInputConfig",
    "TaskName",
    "TeleopConfig",
    "TighterLimits",
    "find",
    "load",
    "load_limits",
    "policy_path",
]

CONFIG_DIR = Path(__file__).resolve().parent / "configs"
"""The shipped rigs: `sim`, `aloha`, `aloha2`."""
POLICY_DIR = Path(__file__).resolve().parent / "policies"
SHIPPED_POLICIES = ("demo", "insertion", "gym_transfer_cube")
"""Transfer cube on the simulated rig; insertion there; transfer cube in gym-aloha's environment (docs/results.md)."""


class RigConfig(Strict):
    """A whole rig. See the comments in configs/aloha.yaml for every key."""

    name: RigName
    kit: Literal["aloha", "aloha2"]
    arms: dict[ArmName, ArmConfig]
    arms_hz: int = Field(200, ge=100, le=500)
    cameras: dict[CameraName, CameraConfig]
    start_pose: JointAngles = robot.START_POSE
    leader_sleep_pose: JointAngles | None = None
    follower_sleep_pose: JointAngles | None = None
    gripper_current_ma: float | None = Field(None, gt=0, le=1200)
    limits: LimitsConfig = LimitsConfig()
    guard: GuardConfig | None = None
    stop_input: StopInputConfig | None = None
    realtime: RealtimeConfig = RealtimeConfig()
    policy: PolicyConfig = PolicyConfig()
    deploy: DeployConfig = DeployConfig()
    teleop: TeleopConfig = TeleopConfig()
    recording: RecordingConfig = RecordingConfig()
    flight: FlightConfig | None = FlightConfig()
    metrics_port: int | None = Field(None, ge=1024, le=65535)
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
            if self.cameras[ours].recorded_only:
                raise ValueError(
                    f"policy.cameras maps {theirs!r} to {ours!r}, which is `recorded_only`: leave one of them out"
                )
        self._check_stop_input()
        for name, arm in self.arms.items():
            self._check_port(name, arm.port)
        for role in robot.ROLES:
            self._check_pose(role, "start_pose", self.start_pose)
            self._check_pose(role, f"{role}_sleep_pose", self.sleep_pose(role))
            for side in self.arms_of(role):
                if role == "follower":
                    self._check_joints(side)
                self._check_gripper(f"arms.{role}_{side}.gripper", self.gripper(role, side))
        return self

    def _check_port(self, arm: ArmName, port: str) -> None:
        """A simulated arm makes its port itself, in the run directory, where it must replace nothing."""
        if self.sim is not None and not SIMULATED_PORT.fullmatch(port):
            raise ValueError(
                f"arms.{arm}.port: {port} is no port of a simulated rig; give a name such as ttyDXL_{arm}, which"
                " begins with tty and is made in the run directory"
            )
        if self.sim is None and not port.startswith("/"):
            raise ValueError(f"arms.{arm}.port: {port} is no path; give the adapter's, such as /dev/ttyDXL_{arm}")

    def _check_stop_input(self) -> None:
        """The STOP has its device or its key for itself."""
        stop = self.stop_input
        if stop is None:
            return
        taken = [name for name, arm in self.arms.items() if arm.port == stop.port]
        if taken:
            raise ValueError(f"stop_input.port {stop.port} is the adapter of {taken[0]}; use another adapter")
        shared = stop.device is not None and stop.device == self.recording.pedal
        if shared and (stop.code is None or stop.code in self.recording.pedal_keys):
            raise ValueError(
                f"stop_input: {stop.name} gives orders to the recorder too (recording.pedal); name another `key`"
            )

    def _kind(self) -> str:
        return "simulated (it has `sim:`)" if self.sim else "real (it has no `sim:`)"

    def _check_pose(self, role: robot.Role, key: str, pose: robot.Pose) -> None:
        low, high = robot.joint_limits(role)
        for joint, angle, least, most in zip(robot.ARM_JOINTS, pose, low, high, strict=False):
            if not least <= angle <= most:
                raise ValueError(f"{key}: {joint} {angle:.3f} rad is outside the {role}'s {least:.3f}..{most:.3f} rad")

    def _check_joints(self, side: robot.Side) -> None:
        """Single limits lie within the kit's range, and both poses within them."""
        low, high = robot.joint_limits("follower")
        poses = {"start_pose": self.start_pose, "follower_sleep_pose": self.sleep_pose("follower")}
        for index, joint in enumerate(robot.ARM_JOINTS):
            name = f"{side}_{joint}"
            stated = self.limits.joints.get(name)
            if stated is None:
                continue
            kit_low, kit_high = float(low[index]), float(high[index])
            least = kit_low if stated.low is None else stated.low
            most = kit_high if stated.high is None else stated.high
            if least < kit_low or most > kit_high:
                raise ValueError(
                    f"limits.joints.{name}: {least:.3f}..{most:.3f} rad is wider than the kit's"
                    f" {kit_low:.3f}..{kit_high:.3f} rad, where the servo itself refuses goals; stay within it"
                )
            for key, pose in poses.items():
                if not least <= pose[index] <= most:
                    raise ValueError(
                        f"limits.joints.{name}: {key} has {pose[index]:.3f} rad, outside {least:.3f}..{most:.3f} rad;"
                        " change one of them"
                    )

    def _check_gripper(self, key: str, gripper: robot.Gripper) -> None:
        turn = abs(gripper.angle_open - gripper.angle_close)
        if turn < robot.LEAST_GRIPPER_TURN_RAD:
            raise ValueError(
                f"{key}: open and closed are {turn:.2f} rad apart, less than {robot.LEAST_GRIPPER_TURN_RAD}; measure"
                " both with `aloha setup --only grippers`"
            )
        if gripper.position_open <= gripper.position_close:
            raise ValueError(f"{key}: position_open is not above position_close; leave both out for the kit's")

    def sleep_pose(self, role: robot.Role) -> robot.Pose:
        """Where arms of this role are parked before torque goes off (rad)."""
        own = self.leader_sleep_pose if role == "leader" else self.follower_sleep_pose
        return own or robot.KITS[self.kit].sleep_pose(role)

    def gripper(self, role: robot.Role, side: robot.Side) -> robot.Gripper:
        """The kit's gripper with the range measured on this arm in place of the published one."""
        arm = self.arms_of(role).get(side)
        measured = {} if arm is None else arm.gripper.model_dump(exclude_none=True)
        return robot.with_range(robot.KITS[self.kit].gripper(role), **measured)

    def grippers(self, role: robot.Role) -> dict[robot.Side, robot.Gripper]:
        """Those of both arms of a role."""
        return {side: self.gripper(role, side) for side in robot.SIDES}

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
        if _is_file(path):
            return path
        raise ConfigError(f"configuration {path} does not exist; give the path of an existing .yaml file")
    shipped = CONFIG_DIR / f"{name_or_path}.yaml"
    if shipped.is_file():
        return shipped
    names = ", ".join(sorted(file.stem for file in CONFIG_DIR.glob("*.yaml")))
    raise ConfigError(
        f"no configuration named {name_or_path!r}: choose one of {names}, or give the path of a .yaml file"
    )


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except PermissionError:
        raise ConfigError(f"{path} lies in a folder that this user may not enter: put it elsewhere") from None


def policy_path(name_or_path: str) -> Path:
    """Directory of a policy given as the name of a shipped one or as a path. Its reader says when it is no policy."""
    return POLICY_DIR / name_or_path if name_or_path in SHIPPED_POLICIES else Path(name_or_path)


def load(name_or_path: str) -> RigConfig:
    """Read and check a rig configuration; raises ConfigError with file, line, key and reason of each mistake."""
    return _read(find(name_or_path), RigConfig)


def advice(name_or_path: str, rig: RigConfig) -> list[str]:
    """What a valid rig file had better say instead: `file:line: key: why, and the new value`."""
    lead = rig.limits.lead_rad
    if lead is None or lead >= FULL_DRIVE_RAD:
        return []
    path = find(name_or_path)
    line = line_of(yaml.compose(path.read_text(encoding="utf-8"), Loader=yaml.SafeLoader), ("limits", "lead_rad"))
    share = lead / FULL_DRIVE_RAD
    return [
        f"{path}:{line}: limits.lead_rad: {lead:g} leaves the servos {share:.0%} of their force, so arms lag behind and"
        f" sink under a load; write `lead_rad: {ARM_LEAD_RAD:g}`, or leave the line out for the default"
    ]


def load_limits(path: Path) -> TighterLimits:
    """Read and check a file of limits below a rig's own: the keys of `deploy.limits`; raises ConfigError as `load`."""
    if not _is_file(path):
        raise ConfigError(f"limits {path} do not exist; give the path of a .yaml file")
    return _read(path, TighterLimits)


S = TypeVar("S", bound=Strict)


@reads(ConfigError, "Begin from a shipped one.", (OSError, yaml.YAMLError))
def _read(path: Path, kind: type[S]) -> S:
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
        return kind.model_validate(data)
    except ValidationError as error:
        raise ConfigError("\n".join(explain(path, node, item) for item in error.errors())) from error
