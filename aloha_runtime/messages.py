"""Typed messages and the topic table: the only list of what travels between processes.

Every message carries a monotonic stamp, a sequence number and a validity: stale and invalid are states that a reader
handles, not exceptions. Each topic has exactly one publisher. Freshness checks, metrics, the recorder and the docs
derive from `TOPICS`.
"""

from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated, TypeVar

import msgspec

from aloha_runtime.decoding import decoder

MS = 1_000_000
"""Nanoseconds in a millisecond."""


class Mode(StrEnum):
    """What the arms may do. IDLE -> ARMED -> (TELEOP | POLICY | REPLAY) -> HOLD -> ARMED; FAULT from anywhere.

    PARK is the bounded-speed way back from ARMED or HOLD to the sleep pose; it ends in IDLE, torque off.
    """

    IDLE = "idle"
    ARMED = "armed"
    TELEOP = "teleop"
    POLICY = "policy"
    REPLAY = "replay"
    HOLD = "hold"
    PARK = "park"
    FAULT = "fault"


MOVING = (Mode.TELEOP, Mode.POLICY, Mode.REPLAY)
"""Modes in which an action topic drives the followers."""
POWERED = (Mode.ARMED, *MOVING, Mode.PARK)
"""Modes that an order of the operator leads to, and in which arms move or may move next."""


class Message(msgspec.Struct, kw_only=True):
    """Common head. `stamp_ns`: monotonic time of the content (not of sending). `seq`: counts up by one per topic."""

    stamp_ns: int
    seq: int = 0
    valid: bool = True


NOT_NAMED_YET = "it is being found out which servo is silent"
"""A cause with these words gives way to the next one that the same arms say, within 200 ms."""


class ArmsState(Message):
    """One cycle of a pair of arms. Vectors are the contract's 14 numbers (`robot.NAMES`).

    `goal` is what was really written to the servos in this cycle, after every limit, in action convention; None while
    torque is off. `action_tick` and `action_stamp_ns` name the action that `goal` is moving to (-1, 0: none).
    """

    position: list[float]
    velocity: list[float]
    effort_ma: list[float]
    gripper_openings: list[float] = msgspec.field(default_factory=list)
    """Of the left and the right gripper by the angle of their motors, as actions carry them. `position` has those of
    the fingers, from which a motor's angle cannot always be told. Empty in logs of versions that did not write it."""
    goal: list[float] | None = None
    target: list[float] | None = None
    """The action as commanded, before limits; None when no action drives the arms."""
    action_tick: int = -1
    action_stamp_ns: int = 0
    mode: Mode = Mode.IDLE
    held_off: int = 0
    """Bit i set: the lead or a position limit kept number i off its target in this cycle: the arm cannot get there."""
    shaped: int = 0
    """Bit i set: number i moved, or gained speed, as fast as it may: it gets to its target a little later."""
    order_ns: int = 0
    """The order that the pair has taken up last, carried out or refused (`ModeHeartbeat.order_ns`); 0: none yet."""
    settled: bool = False
    """True when a ramp (to start or sleep pose) has arrived."""
    hold_cause: str = ""
    """Why the gate itself asks for HOLD or FAULT; empty when it does not."""
    fault: bool = False
    unready: str = ""
    """Why these arms must not be armed now; empty when they may."""


class Action(Message):
    """Joint targets for the followers: 14 numbers in action convention. `stamp_ns` is when it was computed."""

    tick: int
    position: list[float]
    observation_stamp_ns: int = 0
    """Stamp of the oldest part of the observation that led to it (0: none); for latency figures."""
    order_ns: int = 0
    """The order (`ModeHeartbeat.order_ns`) under which it was computed: arms that carry out another one pass it over.
    0: not said."""


class ModeHeartbeat(Message):
    """The supervisor's word on the mode, 50 times a second. `cause` says who asked or what failed."""

    mode: Mode
    pose: str = ""
    """Bounded ramp asked for: "start", "sleep", or empty (stay where you are)."""
    order_ns: int = 0
    """When the supervisor entered this mode: the identity of the order, unique and increasing. Whoever has carried out
    an order, or has seen it become void, never carries it out again."""
    asked_ns: int = 0
    """When the order was asked for, by the clock of the program that asked: arms that held or started later do not obey
    it."""
    cause: str = ""
    gripper: str = ""
    """Arm whose gripper servo is to be restarted by this order, such as `follower_left`; empty: none."""


class FrameInfo(Message):
    """One camera frame: where its pixels are. (height, width, 3) uint8 RGB.

    The pixels are in shared-memory ring `ring`, at `slot` under sequence `seq`; where there is none, in `pixels`,
    `encoding` "raw" or "jpeg".
    """

    camera: str
    height: int
    width: int
    ring: str = ""
    slot: int = -1
    encoding: str = "ring"
    pixels: bytes = b""


class PolicyTick(Message):
    """What the policy process did at one 50 Hz tick; the source of every jitter and latency figure."""

    tick: int
    lateness_ns: int
    """Action published this long after the start of its tick's period."""
    on_time: bool
    """Published within its own period."""
    skipped: int = 0
    """Ticks lost entirely just before this one."""
    fresh: bool = False
    """A chunk computed from this tick's own observation took part."""
    chunks: int = 0
    """How many chunks the ensemble of this tick was made from (0: no action was published)."""
    frame_age_ns: int = 0
    """Oldest camera frame of the observation, at the tick."""
    camera_skew_ns: int = 0
    """Newest minus oldest camera frame of the observation."""
    joint_skew_ns: int = 0
    """Joint state minus newest camera frame, absolute."""
    inference_ns: int = 0
    """Duration of the newest completed inference."""
    reason: str = ""
    """Why there is no observation or action; empty when there is one."""
    stuck: bool = False
    """The inference hangs: no action will come, and none may go on."""


class SimState(Message):
    """The simulated world: enough to render it and to judge the task."""

    task: str
    seed: int
    qpos: list[float]
    environment_state: list[float]
    stage: int
    success: bool
    episode: int = 0
    """Of the last reset; a reader sees by it that the world was reset."""


class SimReset(Message):
    """The supervisor's order to the simulated world: put the objects where `seed` says. Repeated; obeyed once."""

    episode: int
    """Higher with every reset, also after a restart of the supervisor; 0 is none."""
    task_seed: int


class GuardState(Message):
    """How near the followers are to each other and to the table, 50 times a second while they have torque."""

    distance_m: float
    """Of the nearest pair, now; below zero: they overlap."""
    cause: str = ""
    """Why the guard asks for HOLD, both bodies and their distance; empty when it does not."""


class RecorderState(Message):
    """What the recorder is doing, ten times a second."""

    phase: str
    """`control.take.Phase`: idle, ready (the next take begins when the arms move), taking."""
    frames: int = 0
    """Of the take under way, or of the last one."""
    takes: int = 0
    """Takes that have ended since the recorder started, kept or not; it counts up when the last one is dealt with."""
    episodes: int = 0
    """In the dataset."""
    kept: bool = False
    """Whether the last take became an episode."""
    last: str = ""
    """How the last take ended, and its quality, for people."""
    flagged: bool = False
    trouble: str = ""
    """Why nothing can be recorded now."""


class Health(Message):
    """A process's own account, a few times a second. `figures` are named numbers with their unit in the name."""

    process: str
    pid: int
    ok: bool = True
    message: str = ""
    subject: str = ""
    """What the process works on: the checkpoint that a policy runs."""
    figures: dict[str, float] = msgspec.field(default_factory=dict)


class Request(msgspec.Struct, kw_only=True):
    """An operator's wish, sent over REQ/REP.

    `verb` to the supervisor: arm, teleop, policy, replay, takeover, handback, stop, park, status, reset_gripper,
    reset (simulated rig only), shutdown.
    To the recorder: next, success, failure, discard, undo, keep.
    """

    verb: Annotated[str, msgspec.Meta(max_length=40)]
    argument: Annotated[str, msgspec.Meta(max_length=1000)] = ""
    sender: Annotated[str, msgspec.Meta(max_length=100)] = ""
    """What comes of them (a cause, a reply) fits into every message; longer ones are refused as they are decoded."""
    stamp_ns: int = 0
    """When it was asked for (monotonic; set by the client); 0: by somebody without a clock in common."""


class Reply(msgspec.Struct, kw_only=True):
    """The answer. `text` is for people; `mode` is the supervisor's mode after the request (the recorder has none)."""

    ok: bool
    text: str
    mode: Mode | None = None


@dataclass(frozen=True)
class Topic:
    """One topic. `rate_hz`: nominal. `max_age_ms`: older content is stale. `publisher`: its one sender."""

    name: str
    message: type[Message]
    rate_hz: float
    max_age_ms: float
    publisher: str


FOLLOWERS = Topic("followers", ArmsState, 200, 40, "arms@followers")
LEADERS = Topic("leaders", ArmsState, 200, 40, "arms@leaders")
ARMS = (FOLLOWERS, LEADERS)
"""The topics of arms, a pair each."""
ACTION_TELEOP = Topic("action_teleop", Action, 200, 60, "teleop")
ACTION_POLICY = Topic("action_policy", Action, 50, 60, "policy")
ACTION_REPLAY = Topic("action_replay", Action, 50, 60, "replay")
SHADOW_POLICY = Topic("shadow_policy", Action, 50, 60, "policy")
"""What a policy that only shadows would do. Nothing that moves an arm reads it, and it is no mode's action topic."""
POLICY_TICK = Topic("policy_tick", PolicyTick, 50, 60, "policy")
MODE = Topic("mode", ModeHeartbeat, 50, 200, "supervisor")
GUARD = Topic("guard", GuardState, 50, 100, "guard")
SIM_RESET = Topic("sim_reset", SimReset, 50, 200, "supervisor")
RECORDER = Topic("recorder", RecorderState, 10, 500, "recorder")
SIM_STATE = Topic("sim_state", SimState, 125, 40, "world")

TOPICS: tuple[Topic, ...] = (
    FOLLOWERS,
    LEADERS,
    ACTION_TELEOP,
    ACTION_POLICY,
    ACTION_REPLAY,
    SHADOW_POLICY,
    POLICY_TICK,
    MODE,
    GUARD,
    RECORDER,
    SIM_RESET,
    SIM_STATE,
)
"""Every fixed topic. Cameras and health reports come one per process: `camera_topic`, `health_topic`."""

ACTION_TOPIC: dict[Mode, Topic] = {Mode.TELEOP: ACTION_TELEOP, Mode.POLICY: ACTION_POLICY, Mode.REPLAY: ACTION_REPLAY}
"""Which action topic drives the followers in each moving mode."""


def camera_topic(camera: str, rate_hz: float = 60) -> Topic:
    """Frames of one camera; stale after three periods of the slowest supported source (30 fps)."""
    return Topic(f"camera.{camera}", FrameInfo, rate_hz, 100, f"camera@{camera}")


def health_topic(process: str) -> Topic:
    """The health report of one process, e.g. `arms@followers`."""
    return Topic(f"health.{process}", Health, 5, 1000, process)


M = TypeVar("M", bound=msgspec.Struct)


def encode(message: msgspec.Struct) -> bytes:
    """Message to msgpack bytes."""
    return msgspec.msgpack.encode(message)


def decode(data: bytes, kind: type[M]) -> M:
    """Msgpack bytes to a message of `kind`; raises msgspec.DecodeError when they are anything else."""
    message: M = decoder(kind)(data)
    return message
