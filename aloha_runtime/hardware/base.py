"""The device protocols of a rig, arm and camera, and what a reading of each, and of a physical stop, holds.

One conformance suite per protocol (tests/hardware) runs against every backend, the emulated ones included.
"""

from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from aloha_runtime.errors import HardwareError
from aloha_runtime.hardware.steps import Steps
from aloha_runtime.robot import Role

ArmVector = NDArray[np.float64]
"""A (7,) float64 vector: the six joints of `robot.ARM_JOINTS`, then the gripper motor."""


class ArmSilentError(HardwareError):
    """Torque could not be switched because servos are silent: their power may be gone. When it is back they have no
    torque, and get it by an operator's order only, so nobody tries again by itself."""


class Unread(NamedTuple):
    """How long an arm has not been read as a whole; `ns` is 0 while it is. `certain`: `Arm.silent` has all the silent
    servos, because each of the others has been heard meanwhile."""

    ns: int
    certain: bool


@dataclass(frozen=True, slots=True)
class ArmReading:
    """State of one arm at one instant.

    `stamp_ns`: monotonic time at which it was asked for. `angles`: (7,) rad, the last one the gripper *motor*
    angle (not normalised). `velocities`: (7,) rad/s. `efforts_ma`: (7,) mA, or load in 0.1 % where the servo measures
    no current (XL430, XC430). `errors`: joint -> hardware error, empty when all is well; 0x80 is the alert bit alone,
    the lower bits are Hardware_Error_Status once it was read (`dynamixel.registers.describe_hardware_error`).
    """

    stamp_ns: int
    angles: ArmVector
    velocities: ArmVector
    efforts_ma: ArmVector
    errors: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Switched:
    """What came of switching torque. `goals`: the goals that the servos hold now, their positions where they have no
    torque, NaN where they are silent; of an arm (7,) rad, of a pair (14,) in action convention. `failure`: why not
    every servo has what it should; the others have it all the same."""

    goals: NDArray[np.float64]
    failure: HardwareError | None = None


class Arm(Protocol):
    """One arm of seven joints. One thread can overlap several arms: request all, then collect all.

    Nothing but `torque` changes torque: connecting, disconnecting and dying leave it as it is, because an arm without
    torque falls.
    """

    name: str
    """Such as `follower_left`; every error names it."""
    role: Role
    joints: tuple[str, ...]
    """The joint of every servo, shadows as `elbow_shadow`."""

    def connect(self, hold: bool = True) -> None:
        """Take the port for this process alone, check every servo and set it up.

        An arm found with torque on keeps it, and a goal that moves nothing; without `hold` that waits for `hold_steps`,
        so that its watchdog does not wait while other arms are set up. Raises HardwareError naming arm, servo, value
        and remedy.
        """

    def hold_steps(self) -> Steps[Switched]:
        """Set watchdog, gains and goals of servos as they were found, torque as it is; the arm is not connected after a
        failure."""

    def request(self, goal: ArmVector | None, currents_ma: ArmVector | None = None) -> None:
        """Send goals ((7,) rad; None: none) and ask for the state, without waiting for either.

        After `carry`, `currents_ma` (7,) in place of goals. What is not finite or outside the servos' limits is not
        sent at all (counted as `goal_refused`).
        """

    def collect(self, deadline_ns: int) -> ArmReading | None:
        """The state asked for, or None when no whole and plausible one came by `deadline_ns` (monotonic); `counts` says
        why. Never raises for a lost reply or an unplugged port."""

    def torque(self, on: bool, gripper: bool | None = None) -> ArmVector:
        """Switch torque of the six joints, and of the gripper (None: as the joints). Takes some milliseconds.

        Returns `Switched.goals`. A servo that has torque and obeys keeps its goal; one that gets it is to hold where it
        is. A tripped servo watchdog is cleared. Raises HardwareError when not every servo has what it should.
        """

    def torque_steps(self, on: bool, gripper: bool | None = None, again: bool = False) -> Steps[Switched]:
        """`torque` in pieces that wait for nothing, and whose result says what went wrong: for several arms at once.
        `again`: of an order that has been tried before; servos that have lost their torque since get none by it."""

    def carry(self, currents_ma: ArmVector) -> ArmVector:
        """Current control of the joints that bear the arm's weight, torque off elsewhere: the arm is free to move by
        hand. `currents_ma`: (7,), each servo's. `torque` ends it. Raises HardwareError."""

    def carry_steps(self, currents_ma: ArmVector) -> Steps[Switched]:
        """`carry` in pieces."""

    def feed(self) -> None:
        """Send something that keeps the servos' watchdog from tripping, and that nobody answers."""

    @property
    def turned(self) -> dict[str, int]:
        """Joint -> whole turns that a hand has turned it by while it had no torque: its position does not tell them,
        its cable does."""

    def temperatures(self) -> dict[str, float]:
        """Joint -> temperature in degrees Celsius, for those that are known; refreshed beside the cycle, costs no
        traffic."""

    def unknown(self) -> dict[str, float]:
        """Joint -> age in seconds of its temperature, voltage and watchdog, for the joints of which they are not known,
        because they are older than 2 s or have never been heard."""

    def silent(self, now_ns: int) -> dict[str, float]:
        """Joint -> seconds since it last answered, for the joints that are silent now; empty when all answer, and for
        as long as it is not known who is silent: see `unread`."""

    def unread(self, now_ns: int) -> Unread:
        """How long there has been no whole reading, and whether it is known who is silent (within 200 ms)."""

    @property
    def rearm_cause(self) -> str:
        """Why goals are withheld until `torque(True)`, in words for the operator; empty when they are sent.

        So after `connect`, after torque off, after an unplugged port, after a pause in which the servos' watchdog
        tripped, and when a servo was found without its torque or watchdog (a power cut)."""

    def reset_gripper_steps(self) -> Steps[Switched]:
        """Clear a hardware error of the gripper servo by a reboot, in which it lets go for a quarter of a second; then
        it gets the torque that the joints have. Nothing else changes. In pieces, as `torque_steps`.

        There is none for the joints: a joint that reboots drops the arm."""

    @property
    def holding(self) -> bool:
        """True when any servo has torque: as found by `connect`, later as `torque` left it."""

    @property
    def counts(self) -> dict[str, int]:
        """Events since `connect`, by name (`incomplete`, `corrupt`, `foreign`, `implausible`, `port_lost`, ...)."""

    @property
    def connected(self) -> bool:
        """True while the port is open; an unplugged adapter is looked for again by `request`."""

    def disconnect(self) -> None:
        """Give the port back. Torque stays as it is, so the arm never falls. Harmless when not connected."""


@dataclass(frozen=True, slots=True)
class CameraFrame:
    """One image. `stamp_ns`: monotonic time of exposure as near as the device tells. `image`: (H, W, 3) uint8 RGB, not
    written again by the camera. `sequence`: counts up by one per frame of the source; a gap is a lost frame."""

    stamp_ns: int
    image: NDArray[np.uint8]
    sequence: int


class Camera(Protocol):
    """One colour camera."""

    name: str
    """Such as `cam_high`; every error names it."""

    def connect(self) -> None:
        """Open the device and start it. Raises HardwareError naming camera, device and remedy."""

    def read(self, timeout_s: float) -> CameraFrame | None:
        """The newest frame not returned before, waiting up to `timeout_s`; None when there is none. An old frame is
        never returned again as new."""

    @property
    def controls(self) -> dict[str, float]:
        """The camera's controls that the rig file states, by the driver's names, as read back when it was opened."""

    @property
    def identical_frames(self) -> int:
        """How many frames in a row had the same pixels as the one before; 0 where that means nothing (simulated)."""

    def disconnect(self) -> None:
        """Stop and release the device. Harmless when not connected."""


class StopSeen(NamedTuple):
    """A physical stop. `presses`: how often it has been pressed so far. `held`: it is pressed now. `missing`: why it
    cannot be read, and what to do; empty when it can."""

    presses: int
    held: bool
    missing: str
