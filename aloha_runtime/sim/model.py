"""The MuJoCo model of the simulated rig, from the model files inside the installed `gym_aloha` package.

The files are loaded and edited in memory through `mujoco.MjSpec`; nothing is copied. What changes:

- every actuator becomes a DC servo (below), every joint gets the servo's damping, rotor inertia and gear friction;
- the two fingers of a gripper are coupled, as the crank of the real one couples them, and get its full travel;
- the rig's four cameras are added;
- in the model for rendering, heavy meshes that no picture needs are left out.

The servo model is that of `sim.motors`: lag, saturation, velocity limit and the sag under load all follow from it.
"""

from importlib.util import find_spec
from pathlib import Path
from typing import Literal, get_args

from aloha_runtime.errors import SimulationError
from aloha_runtime.robot import ARM_JOINTS, KITS, SIDES, Gripper
from aloha_runtime.sim.gl import mujoco
from aloha_runtime.sim.motors import XM430_W350, XM540_W270, Motor

Task = Literal["transfer_cube", "insertion"]
TASKS: tuple[Task, ...] = get_args(Task)

TIMESTEP_NS = 2_000_000
"""Physics step of the model files: 2 ms."""

FOLLOWER_MOTORS: dict[str, tuple[Motor, int]] = {
    "waist": (XM540_W270, 1),
    "shoulder": (XM540_W270, 2),
    "elbow": (XM540_W270, 2),
    "forearm_roll": (XM540_W270, 1),
    "wrist_angle": (XM540_W270, 1),
    "wrist_rotate": (XM430_W350, 1),
}
"""Motor of each follower joint, and how many share its load (a shadow doubles it)."""

GRIPPER_MOTOR = XM430_W350
GOALS_BEYOND = 1.0
"""Openings beyond either end that a gripper's goal may lie: more than anybody commands."""

CAMERAS: dict[str, tuple[tuple[float, float, float], tuple[float, float, float], float]] = {
    "cam_high": ((0.0, 0.12, 0.80), (0.0, 0.52, 0.08), 44.0),
    "cam_low": ((0.0, 0.0, 0.30), (0.0, 0.55, 0.12), 58.0),
    "overview": ((0.0, -0.60, 0.85), (0.0, 0.5, 0.13), 42.0),
}
"""Fixed cameras: position (m), the point it looks at (m), vertical field of view (degrees). `overview` is for reports:
it stands where an operator would, with both arms in the picture."""

WRIST_CAMERA = ((-0.08, 0.0, 0.09), (0.16, 0.0, 0.0), 70.0)
"""Camera on a gripper, in the frame of `gripper_link`: position, point looked at, field of view (a D405 has 58)."""

PAYLOAD_PLACE = (0.10, 0.0, 0.0)
"""Where a payload is held, in the frame of `gripper_link` (m)."""

HEAVY_MESHES = ("vx300s_7_gripper", "vx300s_9_gripper_bar")
"""Meshes with 55 % of all triangles; without them a frame takes half the time and no task object is hidden by them."""

HEAVY_GROUP = 4
"""Group of the geoms with heavy meshes, which MuJoCo does not draw unless told."""


FINGERS = KITS["aloha"].follower_gripper
"""Crank and fingers of the model files, those of the original ALOHA. Every kit's motor moves them over their whole
travel: of the fingers of ALOHA 2 no source agrees with its published crank on how far they go (19.5 mm by the driver,
29 mm in MuJoCo Menagerie)."""


def finger_from_opening(opening: float) -> float:
    """Finger position (m) of the model at an opening of the motor; beyond the ends on a straight line, where it is a
    goal that presses."""
    within = min(max(opening, 0.0), 1.0)
    travel = FINGERS.position_from_angle(FINGERS.angle_open) - FINGERS.position_from_angle(FINGERS.angle_close)
    return FINGERS.position_from_angle(FINGERS.angle_from_action(within)) + (opening - within) * travel


def opening_from_finger(position_m: float) -> float:
    """The opening of the motor at which the model's finger stands there."""
    return FINGERS.action_from_angle(FINGERS.angle_from_position(position_m))


def finger_slope(gripper: Gripper) -> float:
    """Metres that a finger of the model travels per radian of a kit's motor, on average: the gear that its torque is
    modelled through."""
    return (finger_from_opening(1.0) - finger_from_opening(0.0)) / (gripper.angle_open - gripper.angle_close)


def joint_names(side: str) -> tuple[str, ...]:
    """Names of a follower's six arm joints and its left finger in the model files."""
    return (*(f"vx300s_{side}/{joint}" for joint in ARM_JOINTS), f"vx300s_{side}/left_finger")


def model_file(task: Task) -> Path:
    """The task's model file inside the installed `gym_aloha` package (found without importing it).

    Raises:
        SimulationError: unknown task, or the package is not installed.
    """
    if task not in TASKS:
        raise SimulationError(f"unknown task {task!r}; the simulated rig has: {', '.join(TASKS)}")
    package = find_spec("gym_aloha")
    if package is None or package.origin is None:
        raise SimulationError(
            "the simulated rig needs the gym-aloha package; install it with: pip install 'aloha-runtime[sim]'"
        )
    return Path(package.origin).parent / "assets" / f"bimanual_viperx_{task}.xml"


def build_model(
    task: Task, gripper: Gripper, gripper_current_ma: float, *, heavy_meshes: bool = True, payload_kg: float = 0.0
) -> mujoco.MjModel:
    """Compile the model of physics and rendering: `gripper` and its current limit are the kit's follower gripper.

    `payload_kg`: a mass between the fingers of each arm, as firm as if it were screwed on.
    Without its heavy meshes it has less mass, so it is for pictures only, and needs 30 MB less.
    """
    spec = mujoco.MjSpec.from_file(str(model_file(task)))
    spec.option.timestep = TIMESTEP_NS * 1e-9
    spec.option.integrator = mujoco.mjtIntegrator.mjINT_IMPLICITFAST
    spec.visual.quality.offsamples = 0
    spec.visual.global_.offwidth, spec.visual.global_.offheight = 1280, 960
    for side in SIDES:
        for joint, (motor, count) in FOLLOWER_MOTORS.items():
            _set_servo(spec, f"vx300s_{side}/{joint}", motor, count)
        _set_gripper(spec, f"vx300s_{side}", gripper, gripper_current_ma)
        if payload_kg:
            _add_payload(spec.body(f"vx300s_{side}/gripper_link"), payload_kg)
    _set_cameras(spec)
    for geom in [geom for geom in spec.geoms if geom.meshname in HEAVY_MESHES]:
        if heavy_meshes:
            geom.group = HEAVY_GROUP
        else:
            spec.delete(geom)
    for mesh in [mesh for mesh in spec.meshes if mesh.name in HEAVY_MESHES and not heavy_meshes]:
        spec.delete(mesh)
    model = spec.compile()
    mujoco.mj_clearCache(mujoco.mj_getCache())  # files as read, kept for a next compilation
    return model


def _actuator_of(spec: mujoco.MjSpec, joint: str) -> mujoco.MjsActuator:
    found = next(actuator for actuator in spec.actuators if actuator.target == joint)
    found.name = joint
    return found


def _set_servo(spec: mujoco.MjSpec, name: str, motor: Motor, count: int) -> None:
    """Position loop of `count` motors on one joint; back-EMF as damping, so the voltage clip comes before it."""
    joint = spec.joint(name)
    joint.damping[0] = motor.damping * count
    joint.armature = motor.reflected_inertia * count
    joint.frictionloss = motor.friction * count
    stiffness, stall = motor.stiffness * count, motor.stall_torque * count
    actuator = _actuator_of(spec, name)
    actuator.gainprm[0] = stiffness
    actuator.biasprm[1] = -stiffness
    actuator.forcelimited, actuator.forcerange = True, [-stall, stall]


def _set_gripper(spec: mujoco.MjSpec, prefix: str, gripper: Gripper, current_ma: float) -> None:
    """Both fingers as one crank-driven slider under a current limit (current-based position mode).

    The motor is seen through the crank's mean slope, so force = torque / slope; half of everything to each finger.
    """
    close, opened = finger_from_opening(0.0), finger_from_opening(1.0)
    goals = finger_from_opening(-GOALS_BEYOND), finger_from_opening(1.0 + GOALS_BEYOND)
    slope = finger_slope(gripper)
    motor = GRIPPER_MOTOR
    force = motor.torque_per_ma * current_ma / slope / 2
    stiffness, damping = motor.stiffness / slope**2 / 2, motor.damping / slope**2 / 2
    for finger, sign in (("left_finger", 1.0), ("right_finger", -1.0)):
        joint = spec.joint(f"{prefix}/{finger}")
        joint.range = sorted((sign * close, sign * opened))
        joint.armature = motor.reflected_inertia / slope**2 / 2
        joint.frictionloss = motor.friction / slope / 2
        actuator = _actuator_of(spec, f"{prefix}/{finger}")
        actuator.ctrlrange = sorted(sign * goal for goal in goals)
        actuator.gainprm[0] = stiffness
        actuator.biasprm[1:3] = [-stiffness, -damping]
        actuator.forcelimited, actuator.forcerange = True, [-force, force]
    coupling = spec.add_equality(type=mujoco.mjtEq.mjEQ_JOINT, name=f"{prefix}/crank")
    coupling.objtype = mujoco.mjtObj.mjOBJ_JOINT
    coupling.name1, coupling.name2 = f"{prefix}/right_finger", f"{prefix}/left_finger"
    coupling.data[:2] = [0.0, -1.0]


def _add_payload(hand: mujoco.MjsBody, mass_kg: float) -> None:
    """A ball of 60 mm between the fingertips."""
    ball = hand.add_body(pos=PAYLOAD_PLACE)
    ball.mass, ball.inertia = mass_kg, [0.4 * mass_kg * 0.03**2] * 3
    ball.explicitinertial = True


def _set_cameras(spec: mujoco.MjSpec) -> None:
    for name, (position, focus, fovy) in CAMERAS.items():
        _add_camera(spec, spec.worldbody, name, position, focus, fovy)
    for side in SIDES:
        position, focus, fovy = WRIST_CAMERA
        _add_camera(spec, spec.body(f"vx300s_{side}/gripper_link"), f"cam_{side}_wrist", position, focus, fovy)


def _add_camera(
    spec: mujoco.MjSpec,
    body: mujoco.MjsBody,
    name: str,
    position: tuple[float, float, float],
    focus: tuple[float, float, float],
    fovy: float,
) -> None:
    """A camera fixed to `body` that looks at `focus`, both in the body's frame; the picture's up is the frame's z."""
    back = [p - f for p, f in zip(position, focus, strict=True)]
    # A MuJoCo camera looks along -z with x to the right: x = up cross z for up = (0, 0, 1).
    right = [-back[1], back[0], 0.0]
    up = [
        back[1] * right[2] - back[2] * right[1],
        back[2] * right[0] - back[0] * right[2],
        back[0] * right[1] - back[1] * right[0],
    ]
    camera = body.add_camera(name=name, pos=list(position), fovy=fovy)
    camera.alt.type = mujoco.mjtOrientation.mjORIENTATION_XYAXES
    camera.alt.xyaxes = [*right, *up]
