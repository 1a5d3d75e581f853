"""Faults of the policy: killed, stopped, hanging, late, and numbers that are none."""

import os
import signal
import time
from random import Random

from aloha_runtime.commands.faults.motion import FROZEN_MS, Motion, scenario
from aloha_runtime.commands.faults.rig import FaultRig, Look
from aloha_runtime.commands.faults.scenario import Family, Scenario, Trial
from aloha_runtime.messages import MS, Health
from aloha_runtime.sim.chain_control import GetWire
from aloha_runtime.sim.monitor import Wire

SHORT_STOP_S = 0.2
"""Longer than 60 ms, so the goals freeze; shorter than the 500 ms after which only the operator goes on."""
FORGOTTEN_S = 2.0
"""A hundred ticks, by which the success of ticks is judged."""
STILL_S = 0.5
BUSY_WITHIN_S = 4.0


def killed(rig: FaultRig, _chance: Random) -> tuple[int, str]:
    return rig.kill("policy"), "policy|no action for"


def stopped(rig: FaultRig, _chance: Random) -> tuple[int, str]:
    return rig.kill("policy", signal.SIGSTOP), "policy|no action for"


def go_on(rig: FaultRig, _look: Look) -> str:
    """Whoever comes back after a HOLD moves nothing."""
    os.kill(rig.pid("policy"), signal.SIGCONT)
    rig.pause(STILL_S)
    return moved_since(rig, int(STILL_S * 1e9))


def moved_since(rig: FaultRig, ago_ns: int) -> str:
    """That a goal changed in this time; empty when none did."""
    since_ns = time.monotonic_ns() - ago_ns
    for arm in rig.arms:
        wire = rig.ask(arm, GetWire(since_ns)).wire or Wire()
        if len({(servo, tick) for _, servo, tick in wire.goals}) > len({servo for _, servo, _ in wire.goals}):
            return f"{arm} moved although nobody has armed it again"
    return ""


def stopped_shortly(rig: FaultRig, _chance: Random) -> tuple[int, str]:
    resumes = _resumes(rig)
    fault_ns = rig.kill("policy", signal.SIGSTOP)
    rig.pause(SHORT_STOP_S)
    os.kill(rig.pid("policy"), signal.SIGCONT)
    rig.until(lambda: _resumes(rig) > resumes, 2.0, "a counted resumption of the motion")
    return fault_ns, ""


def forgotten(rig: FaultRig, _look: Look) -> str:
    """The ticks that were missed are not held against the next trial: of the last 100 some may be late, not many."""
    rig.pause(FORGOTTEN_S)
    return ""


def _resumes(rig: FaultRig) -> float:
    report: Health | None = rig.stack.health["arms@followers"].latest()
    return 0.0 if report is None else report.figures.get("gate_resumes", 0.0)


def hangs(rig: FaultRig, _chance: Random) -> tuple[int, str]:
    return rig.failed_ns(), "inference"


def sends_nan(rig: FaultRig, _chance: Random) -> tuple[int, str]:
    return rig.failed_ns(), "actions in a row were refused.* is nan"


def comes_late(rig: FaultRig, _chance: Random) -> tuple[int, str]:
    return rig.failed_ns(), "of the last 100 ticks were on time"


def is_busy(rig: FaultRig, chance: Random) -> Trial:
    """Noticed when the health report of the process names the thread."""
    rig.move(chance, "busy")
    fault_ns = rig.failed_ns()

    def named() -> bool:
        report: Health | None = rig.health.latest()
        return report is not None and not report.ok and "'busy'" in report.message

    rig.until(named, BUSY_WITHIN_S, "a health report that names the thread `busy`")
    return Trial(figure=(time.monotonic_ns() - fault_ns) / MS)


POLICY = Family(
    "policy",
    FaultRig,
    (
        scenario(
            "policy killed",
            "goals frozen within 70 ms of its last action, travel at most 0.27 rad, HOLD, torque on",
            "ms of cycles after the last action",
            FROZEN_MS,
            Motion(killed),
            count=20,
            soak=1000,
        ),
        scenario(
            "policy stopped",
            "as killed; when it goes on, nothing moves",
            "ms of cycles after the last action",
            FROZEN_MS,
            Motion(stopped, after=go_on),
            count=3,
            soak=30,
        ),
        scenario(
            "policy stopped for 0.2 s",
            "the motion goes on through the limits, counted",
            "",
            None,
            Motion(stopped_shortly, stops=False, figure=lambda _: None, after=forgotten),
            count=3,
            soak=30,
        ),
        scenario(
            "inference hangs",
            "its process lives: HOLD after max(200 ms, 3 times its usual time)",
            "ms to HOLD",
            300.0,
            Motion(hangs, fault="hang", figure=lambda look: look.hold_ms),
            count=3,
            soak=30,
        ),
        scenario(
            "NaN in actions",
            "the whole action is refused; three in a row: HOLD",
            "ms to HOLD",
            120.0,
            Motion(sends_nan, fault="nan", figure=lambda look: look.hold_ms),
            count=3,
            soak=30,
        ),
        scenario(
            "late ticks",
            "under 0.80 of the last 100 ticks on time: HOLD",
            "ms to HOLD",
            2500.0,
            Motion(comes_late, fault="late", figure=lambda look: look.hold_ms, timeout_s=4.0),
            count=1,
            soak=10,
        ),
        Scenario(
            "busy thread in the policy",
            "noticed and named in its health report within 3 s",
            "ms to the report",
            3000.0,
            is_busy,
            count=1,
            soak=10,
        ),
    ),
)
