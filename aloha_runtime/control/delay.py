"""How long the way from a tick to the servos' goals takes, and how far ahead a policy looks because of it.

A person's leaders are sampled 200 times a second, and the followers' goal stands where a leader stood `TELEOP_NS` later
(`aloha bench delay` measures it). An action of a policy comes 50 times a second: it waits for its inference, then for
the next cycle of the arms, and the gate leads the goal to it in a straight line for one more tick
(`control/trajectory.py`). In training data the arms answered a person after `TELEOP_NS`; so that they answer the policy
after the same time, it sends what its chunk says of the moment at which the goal will be there, less `TELEOP_NS`.
"""

from aloha_runtime.messages import MS
from aloha_runtime.robot import TICK_NS

TELEOP_NS = 10 * MS
"""A leader's angle to the same goal of the followers: 5 ms until a cycle takes it up, 5 ms of the gate. What the gate's
braking adds (5.6 ms per rad/s) it adds to both."""
TRANSPORT_NS = MS // 2
"""What is sent less than this before a cycle of the arms is taken up by the one after it."""
MOST_NS = 100 * MS
"""A tick that comes later than this is no plan any more (the gate has stopped after 60 ms)."""


def reaches_ns(sent_ns: int, cycle_ns: int) -> int:
    """When the goal stands at an action of a 50 Hz stream that is sent at `sent_ns`.

    Cycles of the arms lie on multiples of `cycle_ns`."""
    taken_up_ns = -(-(sent_ns + TRANSPORT_NS) // cycle_ns) * cycle_ns
    return taken_up_ns + TICK_NS


def lead_ns(tick_ns: int, sent_ns: int, cycle_ns: int) -> int:
    """How far behind the start of its tick lies the moment whose action is to be sent now, so that goals come as late
    as a person's and no later."""
    return min(max(0, reaches_ns(sent_ns, cycle_ns) - tick_ns - TELEOP_NS), MOST_NS)
