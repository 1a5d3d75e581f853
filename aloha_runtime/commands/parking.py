"""The way back when a stack is left: arms to their sleep pose, torque off, or the reason why not."""

import contextlib
from typing import TYPE_CHECKING

from aloha_runtime.control.events import ROUTINE
from aloha_runtime.errors import AlohaError
from aloha_runtime.messages import ArmsState, Mode
from aloha_runtime.realtime import NS_PER_S
from aloha_runtime.stillness import is_stall

if TYPE_CHECKING:
    from aloha_runtime.commands.stack import Stack

PARK_TIMEOUT_S = 60.0
"""A ramp of 3 rad at the lowest velocity limit there is (0.2 rad/s), twice over, and as long again for the stages of
arms that have to be raised first, one after the other."""
TRIES = 4
"""What fails once (no answer within 2 s on a busy computer, a HOLD because it stood still, no memory) may go well a
moment later."""

UNHEARD = "they are not heard, so hold them before you cut their power"


QUIET_S = 2.0
"""A computer that stood still while the arms were being parked gets so long before they are parked again."""


def park(stack: "Stack", alarmed: bool = False) -> str:
    """Have the supervisor park the arms, and wait; returns why they were left as they are, empty when they were parked.

    After a fault nothing moves: an operator who has looked at the servo arms again. It needs nothing that the
    stack did not have when it was entered. A Ctrl-C while it waits stops the arms where they are. `alarmed`: something
    went wrong, so that the stop is worth a log.
    """
    why = ""
    try:
        for _ in range(TRIES):
            try:
                why = _park(stack, "" if alarmed else ROUTINE)
                if not is_stall(why):
                    break
                stack.pause(QUIET_S)
            except Exception as error:
                why = str(error) if isinstance(error, AlohaError) else f"{type(error).__name__}: {error}"
    except BaseException:
        with contextlib.suppress(Exception):
            stack.ask("stop")
        raise
    return _left(stack, why) if why else ""


def _park(stack: "Stack", argument: str) -> str:
    """Stop and park; why the arms are not parked, empty when they are."""
    reply = stack.ask("stop", argument)
    if reply.mode is Mode.FAULT:
        return f"{reply.text}; when the cause is gone: aloha up, aloha arm, aloha park"
    if reply.mode is Mode.IDLE and not stack.armed:
        return ""  # nobody has asked these arms to move since this stack began: they stay as they were found
    asked_ns = stack.clock.now_ns()
    reply = stack.ask("park")
    return "" if reply.mode is Mode.IDLE else _wait(stack, asked_ns)


def _wait(stack: "Stack", asked_ns: int) -> str:
    stack.say("parking the arms (Ctrl-C again skips it: the arms then stay where they are, torque on)")
    deadline_ns = stack.clock.now_ns() + int(PARK_TIMEOUT_S * NS_PER_S)
    while stack.clock.now_ns() < deadline_ns:
        heartbeat = stack.mode.latest()
        if heartbeat is not None and heartbeat.mode is Mode.IDLE:
            return ""
        # The newest heartbeat may still tell of the mode before the request, and parking may end between two looks.
        if heartbeat is not None and heartbeat.order_ns > asked_ns and heartbeat.mode is not Mode.PARK:
            return f"{heartbeat.mode}: {heartbeat.cause}"
        stack.pause()
    return f"parking took longer than {PARK_TIMEOUT_S:.0f} s"


def _left(stack: "Stack", why: str) -> str:
    """For the operator: that the arms are not parked, what they do, and why."""
    try:
        found = {name: _state(reader.fresh(stack.clock.now_ns())) for name, reader in stack.arms.items()}
    except Exception:
        found = {}
    states = set(found.values()) or {UNHEARD}
    listed = "; ".join(f"{name}: {state}" for name, state in found.items())
    return f"the arms are not parked, {states.pop() if len(states) == 1 else listed}: {why}"


def _state(state: ArmsState | None) -> str:
    """What a pair of arms does when nobody commands it any more, by its own last word."""
    if state is None:
        return UNHEARD
    return "they have no torque" if state.goal is None else "they stay where they are, torque on"
