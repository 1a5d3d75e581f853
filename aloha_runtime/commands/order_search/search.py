"""Breadth first through everything that may happen, to a depth: the shortest ways to motion that nobody asked for."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from aloha_runtime.commands.order_search.state_key import copied, key_of
from aloha_runtime.commands.order_search.system import HAPPENINGS, NOTHING, Happening, System

ARM, RAMP = Happening("arm"), (NOTHING,) * 11
BEGINNINGS: dict[str, tuple[Happening, ...]] = {
    "at rest": (),
    "on the way to the start pose": (ARM, NOTHING),
    "a policy moves the arms": (ARM, *RAMP, Happening("policy"), NOTHING),
    "parking": (ARM, *RAMP, Happening("park"), NOTHING),
    "held": (ARM, Happening("stop")),
}
"""What the arms are doing when the search begins."""
Way = tuple[Happening, ...]


@dataclass
class Found:
    """What a search came to. `ways`: the shortest happenings that end in motion without a licence, by pair."""

    depth: int = 0
    states: int = 0
    """That differ in something that may matter."""
    rounds: int = 0
    moving: int = 0
    """Rounds in which arms moved with a licence: a search in which nothing moves proves nothing."""
    ways: list[tuple[Way, str]] = field(default_factory=list)
    violations: int = 0
    """Rounds in which arms moved without one."""


def search(
    depth: int,
    most_ways: int = 20,
    begin: Iterable[Happening] = (),
    happenings: tuple[Happening, ...] = HAPPENINGS,
    tell: Callable[[Found], object] = lambda _: None,
) -> Found:
    """Every sequence of `depth` happenings after those of `begin`; motion without a licence ends a sequence."""
    system = System()
    for happening in (NOTHING, NOTHING, *begin):
        assert not system.advance(happening), f"the arms moved unasked before the search began ({happening})"
    found = Found()
    seen = {key_of(system, system.now_ns)}
    frontier: list[tuple[System, Way]] = [(system, ())]
    for level in range(depth):
        following: list[tuple[System, Way]] = []
        for before, way in frontier:
            broken = False
            for happening in happenings:
                after = copied(before)
                moved = after.advance(happening)
                found.rounds += 1
                if moved:
                    found.violations += 1
                    if not broken and len(found.ways) < most_ways:
                        found.ways.append(((*way, happening), moved))
                    broken = True
                    continue
                found.moving += after.moving
                key = key_of(after, after.now_ns)
                if key not in seen:
                    seen.add(key)
                    if level < depth - 1:
                        following.append((after, (*way, happening)))
        found.depth += 1
        found.states = len(seen)
        tell(found)
        frontier = following
    return found
