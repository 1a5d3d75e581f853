"""Work on several buses in turns: each piece is a generator that says from when on it is worth resuming.

So the torque of two arms goes on together, one thread waits for both, and an arm that waits for nothing can be fed.
"""

import time
from collections.abc import Callable, Generator, Mapping
from typing import TypeAlias, TypeVar

from aloha_runtime.hardware.dynamixel_exchange import STEP_NS

Key = TypeVar("Key")
Result = TypeVar("Result")
Steps: TypeAlias = Generator[int, None, Result]
"""Yields the monotonic time (ns) from which on it may be resumed; returns its result."""


def together(
    works: Mapping[Key, Steps[Result]], done: Callable[[Key], None], idle: Callable[[], int]
) -> dict[Key, Result]:
    """Results of all works, each resumed when it is due. `done`: called when one has ended; `idle`: called before every
    sleep, returns when it wants to be called again (monotonic ns)."""
    results: dict[Key, Result] = {}
    due_ns = dict.fromkeys(works, 0)
    while due_ns:
        now = time.monotonic_ns()
        for key in [key for key, at_ns in due_ns.items() if at_ns <= now]:
            try:
                due_ns[key] = max(next(works[key]), now + STEP_NS)
            except StopIteration as end:
                results[key] = end.value
                del due_ns[key]
                done(key)
        if due_ns:
            wake_ns = min(*due_ns.values(), idle())
            time.sleep(max(0, wake_ns - time.monotonic_ns()) / 1e9)
    return results


def finish(work: Steps[Result]) -> Result:
    """The result of a single work, waited for."""
    return together({"": work}, lambda _: None, lambda: 1 << 62)[""]
