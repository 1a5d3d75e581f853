"""The question after arming: do the arms stand where their servos say, although their currents do not fit that pose?"""

from collections.abc import Callable

from aloha_runtime.commands.keyboard import Keyboard
from aloha_runtime.commands.stack import Stack
from aloha_runtime.control.zeros import DOUBT
from aloha_runtime.errors import AlohaError

DOUBT_S = 0.6
"""Until a doubt is heard: an arm is still for 0.3 s, and a health report comes every 0.2 s."""
QUESTION = "does every arm stand in its start pose? y: go on; any other key: STOP"
REFUSED = (
    "the arms do not stand where their servos say, so nothing was started; see the zero of the joint named above with "
    "`aloha doctor`, and put it right with `aloha setup`"
)
UNASKED = "nobody is asked here; press STOP if an arm does not stand in its start pose"


def ask_about_zeros(stack: Stack, waits: Callable[[], bool]) -> None:
    """Say what the arms processes doubt once their arms stand still, and go on only if the operator agrees; once for a
    stack. Without a terminal it is only said. `waits`: the arms still wait for an order; a squeeze of the leaders is
    an answer as well. Raises AlohaError where the operator does not agree; the arms then hold."""
    stack.pause(DOUBT_S)
    reports = (stack.health[name].latest() for name in stack.arms)
    doubts = [report.message for report in reports if report is not None and DOUBT in report.message]
    if not doubts or stack.zeros_confirmed:
        return
    with Keyboard() as keyboard:
        stack.say("; ".join(doubts) + f"\n{QUESTION if keyboard.present else UNASKED}")
        keys = ""
        while keyboard.present and waits() and not (keys := keyboard.pressed()):
            stack.watch()
            stack.pause()
        if keys and not keys.lower().startswith("y"):
            stack.ask("stop")
            raise AlohaError(REFUSED)
    stack.zeros_confirmed = True
