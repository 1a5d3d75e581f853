"""What the mode machine hears of the rig, and what it answers."""

from dataclasses import dataclass

from aloha_runtime.messages import ArmsState, Mode, Request

ROUTINE = "routine"
"""Argument of a `stop` with which a command ends what it has begun itself: nobody was alarmed, so no log is written."""


def cause_of(request: Request) -> str:
    """What a mode that a request led to says of its origin."""
    routine = f"{ROUTINE} " if (request.verb, request.argument) == ("stop", ROUTINE) else ""
    sender = request.sender if request.sender.isprintable() else ""  # it is shown on terminals
    return f"{routine}{request.verb} by {sender or 'unknown'}"


@dataclass(frozen=True, slots=True)
class Heard:
    """A process gave a sign of life from its own loop."""

    source: str
    stamp_ns: int


@dataclass(frozen=True, slots=True)
class ArmsHeard:
    """A pair of arms reported; `source` is the process."""

    source: str
    state: ArmsState

    @property
    def stamp_ns(self) -> int:
        return self.state.stamp_ns


@dataclass(frozen=True, slots=True)
class HoldAsked:
    """Something (a stuck policy, late ticks, the guard) asks for HOLD of what moves at `stamp_ns`."""

    cause: str
    stamp_ns: int


@dataclass(frozen=True, slots=True)
class FaultChanged:
    """A fault of `source` began, or with an empty cause is gone."""

    source: str
    cause: str
    stamp_ns: int


@dataclass(frozen=True, slots=True)
class BlockerChanged:
    """A reason not to arm (no real-time priority, a check failed), or with an empty reason one less."""

    source: str
    reason: str
    stamp_ns: int


Event = Heard | ArmsHeard | HoldAsked | FaultChanged | BlockerChanged
"""Each has the time of its content, `stamp_ns`: events are judged by it, not by when they were read."""


@dataclass(frozen=True, slots=True)
class Decision:
    """What the machine answers. `ok` and `text` are the reply to a request; `shutdown`: end all processes now."""

    mode: Mode
    changed: bool
    ok: bool
    text: str
    shutdown: bool = False


@dataclass(frozen=True, slots=True)
class Change:
    """One past change of mode. `order_ns`: the identity of the order that it made (`ModeHeartbeat.order_ns`)."""

    order_ns: int
    before: Mode
    after: Mode
    cause: str
