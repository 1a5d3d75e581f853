"""Copies of the whole system, and keys by which the search recognises a state that it has seen before.

Times enter a key as their age and their rank among all times of the state, so that the same situation a second later is
the same state, while every comparison between two times keeps its outcome.
"""

from collections import deque
from collections.abc import Collection
from enum import Enum
from typing import Any, cast

import msgspec
import numpy as np

LEAST_STAMP = 10**11
"""Integers from here on are times in ns; the search begins later than this."""
OLDEST_NS = 10**9
"""Older times differ by their rank only: every bound in the code under search is shorter, or is never reached."""
MOST_STAMPS = 1 << 10
"""Above the number of times in one state, so that age and rank fit into one number."""
SHARED = frozenset({"limits", "timing", "_timing", "_twice_braking", "_scratch", "_zero"})
"""Attributes that never change, or are scratch space: not copied and no part of a key."""
IGNORED = SHARED | {"counters", "_counters", "history", "seq"}
"""Attributes that decide nothing."""
ATOMS = frozenset({type(None), bool, int, float, str, bytes})


class _Shared(dict[type, bool]):
    """Whether objects of a class never change: numbers, words, messages, frozen dataclasses."""

    def __missing__(self, kind: type) -> bool:
        parameters = getattr(kind, "__dataclass_params__", None)
        frozen = parameters is not None and parameters.frozen
        self[kind] = frozen or kind in ATOMS or issubclass(kind, Enum | msgspec.Struct)
        return self[kind]


class _Slots(dict[type, tuple[str, ...]]):
    """The attributes of a class that lie in slots and enter a key."""

    def __missing__(self, kind: type) -> tuple[str, ...]:
        fields = kind.__struct_fields__ if issubclass(kind, msgspec.Struct) else ()
        names = (*fields, *(name for parent in kind.__mro__ for name in getattr(parent, "__slots__", ())))
        self[kind] = tuple(name for name in names if name not in IGNORED and name != "__dict__")
        return self[kind]


_SHARED, _SLOTS = _Shared(), _Slots()


def copied(thing: Any) -> Any:
    """A deep copy; what never changes is shared."""
    kind = type(thing)
    if _SHARED[kind]:
        return thing
    if kind is np.ndarray:
        return thing.copy() if thing.flags.writeable else thing
    if kind is dict:
        return {key: copied(value) for key, value in thing.items()}
    if kind is deque:
        return deque((copied(item) for item in thing), thing.maxlen)
    if kind in (tuple, list, set):
        return kind(copied(item) for item in thing)
    twin = object.__new__(kind)
    for name, value in vars(thing).items():
        twin.__dict__[name] = value if name in SHARED else copied(value)
    return twin


def key_of(thing: object, now_ns: int) -> int:
    """What two states have in common when nothing that may follow tells them apart."""
    parts: list[Any] = []
    stamps: list[tuple[int, int]] = []
    _collect(thing, parts, stamps)
    rank = {stamp: index for index, stamp in enumerate(sorted({stamp for _, stamp in stamps}))}
    for place, stamp in stamps:
        parts[place] = min(now_ns - stamp, OLDEST_NS) * MOST_STAMPS + rank[stamp]
    return hash(tuple(parts))


def _collect(thing: Any, parts: list[Any], stamps: list[tuple[int, int]]) -> None:
    """Append what decides to `parts`, and the place and value of each time to `stamps`."""
    inside = _inside(thing)
    if inside is not None:
        parts.append(len(inside))
        for part in inside:
            _collect(part, parts, stamps)
        return
    if type(thing) is int and thing >= LEAST_STAMP:
        stamps.append((len(parts), thing))
    parts.append(_atom(thing))


def _inside(thing: Any) -> Collection[Any] | None:
    """The parts of a container or an object; None for what has none."""
    kind = type(thing)
    if kind in ATOMS or kind is np.ndarray or issubclass(kind, Enum):
        return None
    if kind in (tuple, list, deque):
        return cast(Collection[Any], thing)
    if kind is set:
        return sorted(thing)
    if kind is dict:
        return [part for name in sorted(thing) for part in (name, thing[name])]
    in_slots = [getattr(thing, name) for name in _SLOTS[kind]]
    return in_slots + [value for name, value in getattr(thing, "__dict__", {}).items() if name not in IGNORED]


def _atom(thing: Any) -> Any:
    """A number or word as it enters a key. Of words for people only whether there are any; angles to 1 mrad."""
    if isinstance(thing, float):
        return round(thing, 3)
    if isinstance(thing, np.ndarray):
        return np.rint(thing * 1000).tobytes()
    if isinstance(thing, Enum):
        return thing.value
    return " " if isinstance(thing, str) and " " in thing else thing
