"""The simulated world: two follower arms that move as their servos would, and the objects of one task.

Pure: no bus, no sockets, no clock; time passes only in `step`. Vectors are (14,) in contract order, *motor side*: joint
angles in rad, and for a gripper the angle of its motor in rad (`robot.Gripper` converts to openings).
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from aloha_runtime.robot import (
    DOF,
    GRIPPER_INDEX,
    IS_GRIPPER,
    KITS,
    SIDES,
    START_POSE,
    Gripper,
    Kit,
    Side,
    Vector,
)
from aloha_runtime.sim import tasks
from aloha_runtime.sim.gl import mujoco
from aloha_runtime.sim.model import (
    FINGERS,
    FOLLOWER_MOTORS,
    GRIPPER_MOTOR,
    TIMESTEP_NS,
    Task,
    build_model,
    finger_from_opening,
    finger_slope,
    joint_names,
    opening_from_finger,
)

SETTLE_NS = 600_000_000
"""After a reset the objects fall on the table and the arms sag under gravity before the episode starts: 0.6 s."""


@dataclass(frozen=True)
class Snapshot:
    """All that another process needs to show this instant: the time since reset (ns), generalised positions (nq,) and
    velocities (nv,) of the model, and the goals (nu,)."""

    time_ns: int
    qpos: NDArray[np.float64]
    qvel: NDArray[np.float64]
    ctrl: NDArray[np.float64]


class World:
    """One task's world. Deterministic: the same seed and the same commands give the same bytes."""

    def __init__(
        self,
        task: Task,
        seed: int = 0,
        kit: Kit = KITS["aloha"],
        grippers: Mapping[Side, Gripper] | None = None,
        gripper_current_ma: float | None = None,
        payload_kg: float = 0.0,
    ) -> None:
        """`grippers`: of each arm, where their motors' ranges are not the kit's; `gripper_current_ma` likewise."""
        self.task: Task = task
        self.grippers = dict(grippers or dict.fromkeys(SIDES, kit.follower_gripper))
        current_ma = gripper_current_ma or kit.gripper_current_ma
        self.model = build_model(task, kit.follower_gripper, current_ma, payload_kg=payload_kg)
        self.data = mujoco.MjData(self.model)
        joints = [self.model.joint(name) for side in SIDES for name in joint_names(side)]
        self._qpos = np.array([joint.qposadr[0] for joint in joints])
        self._dof = np.array([joint.dofadr[0] for joint in joints])
        # Actuators carry the name of their joint; a gripper's second one drives the right finger.
        self._actuator = np.array([self.model.actuator(joint.name).id for joint in joints])
        self._second = np.array([self.model.actuator(f"vx300s_{side}/right_finger").id for side in SIDES])
        self._gain = self.model.actuator_gainprm.copy()
        self._bias = self.model.actuator_biasprm.copy()
        motors = [*FOLLOWER_MOTORS.values(), (GRIPPER_MOTOR, 1)] * 2
        self._torque_per_ma = np.array([motor.torque_per_ma * count for motor, count in motors])
        self._finger_slope = finger_slope(kit.follower_gripper)
        self._torque = np.ones(DOF, dtype=bool)
        self._owed_ns = 0
        self._time_ns = 0
        self.reset(seed)

    def reset(self, seed: int, start: Vector | None = None) -> None:
        """Start over: objects where the seed puts them, arms at `start` (14,), or at START_POSE with grippers closed.

        The world is let settle for `SETTLE_NS` with torque on and the goal at `start`, so the first state read is that
        of arms holding a pose.
        """
        mujoco.mj_resetData(self.model, self.data)
        angles = self.closed_start() if start is None else np.asarray(start, dtype=np.float64)
        self._place_arms(angles)
        self.place_objects(seed)
        self.command(angles, np.ones(DOF, dtype=bool))
        self._owed_ns = 0
        self.step(SETTLE_NS)
        self._time_ns = 0
        self.data.time = 0.0

    def place_objects(self, seed: int) -> None:
        """Put the objects where a seed puts them, at rest just above the table; the arms stay as they are."""
        for item, pose in zip(tasks.OBJECTS[self.task], tasks.draw_poses(self.task, seed).values(), strict=True):
            joint = self.model.joint(item.joint)
            self.data.qpos[joint.qposadr[0] : joint.qposadr[0] + 7] = pose
            self.data.qvel[joint.dofadr[0] : joint.dofadr[0] + 6] = 0.0

    def closed_start(self) -> Vector:
        """START_POSE of both arms with the gripper motors at their closed angle."""
        return np.concatenate([[*START_POSE, self.grippers[side].angle_close] for side in SIDES])

    def command(self, angles: Vector, torque: NDArray[np.bool_]) -> None:
        """Goal angles (14,) in rad and which servos have torque (14,) bool, until the next command.

        A joint without torque turns freely against gear friction and the motor's own drag, so an arm sinks slowly.
        """
        self.data.ctrl[self._actuator] = angles
        for side, index, second in zip(SIDES, GRIPPER_INDEX, self._second, strict=True):
            finger = finger_from_opening(self.grippers[side].action_from_angle(float(angles[index])))
            self.data.ctrl[self._actuator[index]] = finger
            self.data.ctrl[second] = -finger
        if not np.array_equal(torque, self._torque):
            self._set_torque(np.asarray(torque, dtype=bool))

    def step(self, duration_ns: int) -> None:
        """Let `duration_ns` pass. Physics runs in steps of 2 ms; what does not fill a step is carried to the next."""
        self._owed_ns += duration_ns
        count = self._owed_ns // TIMESTEP_NS
        self._owed_ns -= count * TIMESTEP_NS
        self._time_ns += duration_ns
        if count:
            mujoco.mj_step(self.model, self.data, count)

    def angles(self) -> Vector:
        """Present motor angles (14,), rad."""
        angles: Vector = self.data.qpos[self._qpos].copy()
        for side, index in zip(SIDES, GRIPPER_INDEX, strict=True):
            angles[index] = self.grippers[side].angle_from_action(opening_from_finger(float(angles[index])))
        return angles

    def velocities(self) -> Vector:
        """Present motor velocities (14,), rad/s."""
        velocities: Vector = self.data.qvel[self._dof].copy()
        for side, index in zip(SIDES, GRIPPER_INDEX, strict=True):
            turn = FINGERS.angle_from_position(float(self.data.qpos[self._qpos[index]]))
            gripper = self.grippers[side]
            share = (gripper.angle_open - gripper.angle_close) / (FINGERS.angle_open - FINGERS.angle_close)
            velocities[index] *= share / FINGERS.slope(turn)
        return velocities

    def efforts_ma(self) -> Vector:
        """Present motor currents (14,), mA, from the torque of each motor (a shadow pair's is shared)."""
        torque = self.data.actuator_force[self._actuator].copy()
        back_emf = self.model.dof_damping[self._dof] * self.data.qvel[self._dof]
        torque -= np.where(IS_GRIPPER | ~self._torque, 0.0, back_emf)
        torque[list(GRIPPER_INDEX)] *= 2 * self._finger_slope
        return np.asarray(torque / self._torque_per_ma)

    def object_poses(self) -> dict[str, NDArray[np.float64]]:
        """Pose of every object by name: position (m) and quaternion (w, x, y, z), (7,) each."""
        poses = {}
        for item in tasks.OBJECTS[self.task]:
            address = self.model.joint(item.joint).qposadr[0]
            poses[item.name] = self.data.qpos[address : address + 7].copy()
        return poses

    def environment_state(self) -> NDArray[np.float64]:
        """Object poses in one vector: (7,) for transfer_cube, (14,) for insertion (peg, socket)."""
        return np.concatenate(list(self.object_poses().values()))

    def stage(self) -> int:
        """How far the task is, 0 to 4 (`tasks.stage`)."""
        return tasks.stage(self.task, self.model, self.data)

    @property
    def success(self) -> bool:
        """Whether the task is solved at this instant."""
        return self.stage() == tasks.SUCCESS_STAGE

    def snapshot(self) -> Snapshot:
        return Snapshot(self._time_ns, self.data.qpos.copy(), self.data.qvel.copy(), self.data.ctrl.copy())

    def restore(self, snapshot: Snapshot) -> None:
        """Put the world at a snapshot of the same task, for rendering or to go on from there."""
        self.data.qpos[:], self.data.qvel[:], self.data.ctrl[:] = snapshot.qpos, snapshot.qvel, snapshot.ctrl
        self._time_ns = snapshot.time_ns
        mujoco.mj_forward(self.model, self.data)

    def _place_arms(self, angles: Vector) -> None:
        self.data.qpos[self._qpos] = angles
        for side, index in zip(SIDES, GRIPPER_INDEX, strict=True):
            opening = self.grippers[side].action_from_angle(float(angles[index]))
            finger = finger_from_opening(min(max(opening, 0.0), 1.0))
            self.data.qpos[self._qpos[index]] = finger
            self.data.qpos[self.model.joint(f"vx300s_{side}/right_finger").qposadr[0]] = -finger

    def _set_torque(self, torque: NDArray[np.bool_]) -> None:
        self._torque = torque.copy()
        by_actuator = np.ones(self.model.nu, dtype=bool)
        by_actuator[self._actuator] = torque
        by_actuator[self._second] = torque[list(GRIPPER_INDEX)]
        self.model.actuator_gainprm[:] = np.where(by_actuator[:, None], self._gain, 0.0)
        self.model.actuator_biasprm[:] = np.where(by_actuator[:, None], self._bias, 0.0)
