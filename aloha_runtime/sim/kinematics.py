"""Inverse kinematics of a simulated follower (damped least squares on MuJoCo's Jacobian), and how its servos sag."""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from aloha_runtime.errors import SimulationError
from aloha_runtime.robot import ARM_JOINTS, Side
from aloha_runtime.sim.gl import mujoco
from aloha_runtime.sim.model import FOLLOWER_MOTORS

Matrix = NDArray[np.float64]

TOOL_OFFSET_M = 0.135
"""The point between the finger pads lies this far ahead of `gripper_link`."""

DAMPING = 0.02
"""Damping of the least squares step: keeps steps bounded near singular poses at a small cost in speed."""

ROTATION_WEIGHT_M = 0.3
"""Metres that one radian of rotation error weighs as much as."""

TOLERANCE_M = 5e-4
ITERATIONS = 60
_SOLVED = np.array([joint != "forearm_roll" for joint in ARM_JOINTS])


@dataclass(frozen=True)
class ToolPose:
    """Where a tool is to be: position (3,) in m, `pitch` (rad, positive points down) and `roll` (rad, 0 closes the
    fingers sideways, pi/2 vertically). Its heading is not free: the tool points away from its own base.

    That leaves forearm_roll at zero, so the wrist never meets its singularity (forearm_roll and wrist_rotate in line).
    """

    position: Matrix
    pitch: float
    roll: float = 0.0

    def toward(self, other: "ToolPose", fraction: float) -> "ToolPose":
        """The pose at a fraction of the straight way to another."""
        return ToolPose(
            self.position + fraction * (other.position - self.position),
            self.pitch + fraction * (other.pitch - self.pitch),
            self.roll + fraction * (other.roll - self.roll),
        )


def tool_rotation(heading: float, pitch: float, roll: float) -> Matrix:
    """Rotation (3, 3) of a tool: `heading` about the world's z, `pitch` down, `roll` about where it points."""
    cos_h, sin_h, cos_p, sin_p, cos_r, sin_r = (f(a) for a in (heading, pitch, roll) for f in (math.cos, math.sin))
    yaw = np.array([[cos_h, -sin_h, 0.0], [sin_h, cos_h, 0.0], [0.0, 0.0, 1.0]])
    tilt = np.array([[cos_p, 0.0, sin_p], [0.0, 1.0, 0.0], [-sin_p, 0.0, cos_p]])
    turn = np.array([[1.0, 0.0, 0.0], [0.0, cos_r, -sin_r], [0.0, sin_r, cos_r]])
    return np.asarray(yaw @ tilt @ turn)


def rotation_vector(rotation: Matrix) -> Matrix:
    """Axis times angle (3,) of a rotation matrix."""
    quaternion, vector = np.empty(4), np.empty(3)
    mujoco.mju_mat2Quat(quaternion, rotation.ravel())
    mujoco.mju_quat2Vel(vector, quaternion, 1.0)
    return vector


class ArmKinematics:
    """Kinematics of one follower arm on a private copy of the world's state."""

    def __init__(self, model: mujoco.MjModel, side: Side) -> None:
        self._model, self._data = model, mujoco.MjData(model)
        joints = [model.joint(f"vx300s_{side}/{joint}") for joint in ARM_JOINTS]
        self._qpos = np.array([joint.qposadr[0] for joint in joints])
        self._dof = np.array([joint.dofadr[0] for joint in joints])
        self._range = np.array([joint.range for joint in joints])
        self._body = model.body(f"vx300s_{side}/gripper_link").id
        self._stiffness = np.array([motor.stiffness * count for motor, count in FOLLOWER_MOTORS.values()])
        self._base = model.body(f"vx300s_{side}").pos.copy()
        self._side = side

    def pose(self, angles: Matrix) -> ToolPose:
        """Tool pose at joint angles (6,) with forearm_roll 0."""
        position, _ = self._tool(angles)
        return ToolPose(position, float(angles[1] + angles[2] + angles[4]), float(angles[5]))

    def solve(self, pose: ToolPose, guess: Matrix) -> Matrix:
        """Joint angles (6,) that put the tool at `pose`, near `guess`.

        Raises:
            SimulationError: the arm cannot get within a few millimetres of that pose.
        """
        target = tool_rotation(self._heading(pose.position), pose.pitch, pose.roll)
        angles = np.where(_SOLVED, guess, 0.0)
        translation_jac, rotation_jac = np.empty((3, self._model.nv)), np.empty((3, self._model.nv))
        error = np.empty(6)
        for _ in range(ITERATIONS):
            tool, present = self._tool(angles)
            error[:3] = pose.position - tool
            error[3:] = ROTATION_WEIGHT_M * rotation_vector(target @ present.T)
            if np.linalg.norm(error) < TOLERANCE_M:
                return angles
            mujoco.mj_comPos(self._model, self._data)
            mujoco.mj_jac(self._model, self._data, translation_jac, rotation_jac, tool, self._body)
            jacobian = np.vstack([translation_jac[:, self._dof], ROTATION_WEIGHT_M * rotation_jac[:, self._dof]])
            jacobian[:, ~_SOLVED] = 0.0
            square = jacobian @ jacobian.T + DAMPING**2 * np.eye(6)
            step = jacobian.T @ np.linalg.solve(square, error)
            angles = np.clip(angles + step, self._range[:, 0], self._range[:, 1])
        if np.linalg.norm(error) > 10 * TOLERANCE_M:
            raise SimulationError(
                f"the {self._side} follower cannot reach {np.round(pose.position, 3).tolist()} m: "
                f"{np.linalg.norm(error[:3]) * 1000:.1f} mm away at best; choose a pose nearer to its base"
            )
        return angles

    def square_roll(self, position: Matrix, pitch: float) -> float:
        """Roll that turns the fingers of a tool pitched down at `position` to close along the world's y."""
        return math.atan(math.tan(self._heading(position)) / math.sin(pitch))

    def sag(self, angles: Matrix) -> Matrix:
        """How far (6,) rad goals must lie ahead of `angles` for the servos to hold the arm's weight there."""
        self._data.qpos[self._qpos] = angles
        mujoco.mj_forward(self._model, self._data)
        return np.asarray(self._data.qfrc_bias[self._dof] / self._stiffness)

    def _heading(self, position: Matrix) -> float:
        offset = position - self._base
        return math.atan2(offset[1], offset[0])

    def _tool(self, angles: Matrix) -> tuple[Matrix, Matrix]:
        """Tool position (3,) in m and rotation (3, 3) at joint angles (6,)."""
        self._data.qpos[self._qpos] = angles
        mujoco.mj_kinematics(self._model, self._data)
        rotation = self._data.xmat[self._body].reshape(3, 3).copy()
        return self._data.xpos[self._body] + TOOL_OFFSET_M * rotation[:, 0], rotation
