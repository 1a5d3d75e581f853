"""Limits of single joints in a rig file: for a wall beside one arm, a cable, a camera on a wrist."""

import math
from typing import Annotated

from pydantic import Field

from aloha_runtime.config_strict import Strict

FollowerJoint = Annotated[
    str, Field(pattern=r"^(left|right)_(waist|shoulder|elbow|forearm_roll|wrist_angle|wrist_rotate)$")
]
"""A follower's joint as `robot.NAMES` spells it. A gripper's range is that of its arm (`arms.ARM.gripper`)."""
Angle = Annotated[float, Field(ge=-math.pi, le=math.pi, allow_inf_nan=False)]


class JointLimit(Strict):
    """Tighter than what the kit allows this joint, never wider; what is left out is as for every joint. `low`, `high`
    in rad."""

    low: Angle | None = None
    high: Angle | None = None
    velocity_rad_s: float | None = Field(None, ge=0.2, allow_inf_nan=False)
    acceleration_rad_s2: float | None = Field(None, ge=1, allow_inf_nan=False)
