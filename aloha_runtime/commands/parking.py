"""The way back when a stack is left: arms to their sleep pose, torque off, or the reason why not."""

from typing import TYPE_CHECKING

from aloha_runtime.control.events import ROUTINE
from aloha_runtime.errors import AlohaError
from aloha_runtime.messages import Mode
from aloha_runtime.realtime import NS_PER_S
from aloha_runtime.stillness import is_stall

if TYPE_CHECKING:
    from aloha_runtime.commands.stack import Stack

PARK_TIMEOUT_S = 40.0
"""The longest ramp to the sleep pose (3 rad) at the lowest velocity limit there is (0.2 rad/s), twice over."""


PARK_TRIES = 4
QUIET_S = 2.0
"""A computer that stood still while the arms were being parked gets so long before they are parked again."""


def park(stack: "Stack", alarmed: bool = False) -> str:
    """Have the supervisor park the arms, and wait; returns why they were left as they are, empty when they were parked.

    After a fault nothing moves: whoever has looked at the servo says so by arming again. `alarmed`: something went
    wrong, so that the stop is worth a log.
    """
    for _ in range(PARK_TRIES):
        trouble = _park(stack, "" if alarmed else ROUTINE)
        if not is_stall(trouble):
            break
        stack.pause(QUIET_S)
    return trouble


def _park(stack: "Stack", why: str) -> str:
    try:
        reply = stack.ask("stop", why)
        if reply.mode is Mode.FAULT:
            return _left(f"{reply.text}; when the cause is gone: aloha up, aloha arm, aloha park")
        asked_ns = stack.clock.now_ns()
        reply = stack.ask("park")
    except AlohaError as error:
        return _left(str(error))
    return "" if reply.mode is Mode.IDLE else _wait(stack, asked_ns)


def _wait(stack: "Stack", asked_ns: int) -> str:
    stack.say("parking the arms (Ctrl-C again skips it: the arms then stay where they are, torque on)")
    deadline_ns = stack.clock.now_ns() + int(PARK_TIMEOUT_S * NS_PER_S)
    while stack.clock.now_ns() < deadline_ns:
        heartbeat = stack.mode.latest()
        if heartbeat is not None and heartbeat.mode is Mode.IDLE:
            return ""
        # The newest heartbeat may still tell of the mode before the request, and parking may end between two looks.
        if heartbeat is not None and heartbeat.since_ns > asked_ns and heartbeat.mode is not Mode.PARK:
            return _left(f"{heartbeat.mode}: {heartbeat.cause}")
        stack.pause()
    return _left(f"parking took longer than {PARK_TIMEOUT_S:.0f} s")


def _left(why: str) -> str:
    return f"the arms are not parked, they stay where they are, torque on: {why}"
