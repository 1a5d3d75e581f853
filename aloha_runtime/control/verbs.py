"""What an operator may ask of the supervisor, and where each verb leads from each mode."""

from aloha_runtime.messages import MOVING, POWERED, Mode

DRIVER = {Mode.TELEOP: "teleop", Mode.POLICY: "policy", Mode.REPLAY: "replay"}
"""The process whose actions drive the followers in each moving mode."""
STARTS = {"teleop": Mode.TELEOP, "policy": Mode.POLICY, "replay": Mode.REPLAY}
EXCHANGES = {"takeover": Mode.TELEOP, "handback": Mode.POLICY}
"""From the one to the other without ARMED; the supervisor sees to it that leaders and followers agree."""
RESET_GRIPPER = "reset_gripper"
"""Restart the gripper servo of the arm that the argument names. It lets go of what it holds, so a person must ask."""
OPERATOR_ONLY = ("arm", "park", "shutdown", RESET_GRIPPER)
ALWAYS = ("stop", "status")
"""Verbs that start no motion: obeyed however long they were on their way."""

ON_REQUEST: dict[str, dict[Mode, Mode]] = {
    "arm": dict.fromkeys((Mode.IDLE, Mode.ARMED, Mode.HOLD, Mode.FAULT), Mode.ARMED),
    **{verb: {Mode.ARMED: mode, mode: mode} for verb, mode in STARTS.items()},
    **{verb: {Mode.POLICY: mode, Mode.TELEOP: mode} for verb, mode in EXCHANGES.items()},
    "stop": {
        **dict.fromkeys((*POWERED, Mode.HOLD), Mode.HOLD),
        Mode.IDLE: Mode.IDLE,
        Mode.FAULT: Mode.FAULT,
    },
    "park": {**dict.fromkeys((Mode.ARMED, Mode.HOLD, Mode.FAULT, Mode.PARK), Mode.PARK), Mode.IDLE: Mode.IDLE},
    "shutdown": {
        **dict.fromkeys((*POWERED, Mode.HOLD), Mode.PARK),
        Mode.IDLE: Mode.IDLE,
        Mode.FAULT: Mode.FAULT,
    },
    RESET_GRIPPER: {Mode.FAULT: Mode.FAULT},
    "status": {mode: mode for mode in Mode},
}
"""Where each verb leads from each mode; what is not listed is refused."""

ADVICE = {
    Mode.IDLE: "arm first",
    Mode.HOLD: "arm first",
    Mode.FAULT: "clear the fault, then arm",
    Mode.PARK: "wait until the arms are parked, or stop them, then arm",
    **dict.fromkeys((Mode.ARMED, *MOVING), "stop first"),
}
"""What to do when a verb is refused in a mode."""
