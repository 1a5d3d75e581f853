"""Temporal ensembling of action chunks by absolute tick. NumPy only: processes without torch use it too.

Zhao et al. 2023 (https://arxiv.org/abs/2304.13705, section IV.B): a chunk is predicted at every step, so several
predictions exist for each tick, and the executed action is their weighted mean

    a(t) = sum_i w_i * a_i(t) / sum_i w_i,        w_i = exp(-m * i),        i = 0 for the oldest prediction of tick t.

Here chunks are stored with the tick of their first action, so a prediction that comes late, early, or never changes
which predictions are averaged, and never which tick they are meant for. With a chunk at every tick it is the paper's.
"""

from typing import Literal

import numpy as np
from numpy.typing import NDArray

Mode = Literal["off", "paper", "newest"]
MODES: tuple[Mode, ...] = ("off", "paper", "newest")

PAPER_COEFFICIENT = 0.01
"""m of the paper: small, so that all predictions count almost alike, the oldest a little more."""


class TemporalEnsemble:
    """Holds the chunks that may still matter and answers "which action at tick t?".

    mode `paper`   weights exp(-m i), i = 0 the oldest chunk that covers the tick: smooth
    mode `newest`  weights exp(-m i), i = 0 the newest: reacts faster
    mode `off`     one chunk alone, open loop, for `execute_steps` ticks (or to its end), then the newest there is

    `mode`, `coefficient` and `execute_steps` may be set at any time; call from one thread. "Older" means an earlier
    first tick; a second chunk for the same first tick replaces the first.
    """

    def __init__(self, mode: Mode = "paper", coefficient: float = PAPER_COEFFICIENT, execute_steps: int = 1) -> None:
        if mode not in MODES:
            raise ValueError(f"ensemble mode {mode!r} is not one of {', '.join(MODES)}")
        if not np.isfinite(coefficient):
            raise ValueError(f"ensemble coefficient {coefficient!r} must be finite")
        if execute_steps < 1:
            raise ValueError(f"execute_steps = {execute_steps!r} must be at least 1")
        self.mode: Mode = mode
        self.coefficient = coefficient
        self.execute_steps = execute_steps
        self._chunks: dict[int, NDArray[np.float64]] = {}
        self._adopted: tuple[int, int] | None = None  # mode off: (first tick of the chunk, tick since which it runs)

    def reset(self) -> None:
        """Forget all chunks."""
        self._chunks.clear()
        self._adopted = None

    def add(self, chunk_start_tick: int, chunk: NDArray[np.floating]) -> None:
        """Take a chunk (n, ...) whose first action is meant for `chunk_start_tick`. Chunks may arrive in any order.

        Raises `ValueError` for an empty chunk or numbers that are not finite: such a chunk must not move an arm.
        """
        actions = np.array(chunk, dtype=np.float64)
        if actions.ndim < 2 or not len(actions):
            raise ValueError(f"chunk has shape {actions.shape}, must be (n, action) with n of at least 1")
        if not np.isfinite(actions).all():
            raise ValueError(f"chunk for tick {chunk_start_tick} has values that are not finite")
        self._chunks[int(chunk_start_tick)] = actions

    def action(self, tick: int, ahead: float = 0.0) -> NDArray[np.float64] | None:
        """The action (...) for `tick`, or None when no chunk covers it.

        `ahead` (ticks): what the chunks that cover `tick` say of a little later, interpolated; one that ends before
        counts only where there is no other. Chunks that ended before `tick` are dropped, so ticks must be asked for in
        order (repeats and gaps are fine).
        """
        for start in [start for start, chunk in self._chunks.items() if start + len(chunk) <= tick]:
            del self._chunks[start]
        covering = sorted(start for start in self._chunks if start <= tick)
        if not covering:
            return None
        reaching = [start for start in covering if tick + ahead - start <= len(self._chunks[start]) - 1]
        starts = reaching or covering[-1:]
        if self.mode == "off":
            return self._predicted(self._running_chunk(tick, starts), tick + ahead)
        if self.mode == "newest":
            starts.reverse()
        predictions = [self._predicted(start, tick + ahead) for start in starts]  # k of (...)
        exponents = -self.coefficient * np.arange(len(starts))
        weights = np.exp(exponents - exponents.max())  # shifted, so that no coefficient overflows
        # Flat, because concatenating rows takes a third of the time of stacking them.
        flat = np.concatenate([action.ravel() for action in predictions]).reshape(len(starts), -1)  # (k, numbers)
        mean: NDArray[np.float64] = (weights @ flat / weights.sum()).reshape(predictions[0].shape)
        return mean

    def _predicted(self, start: int, tick: float) -> NDArray[np.float64]:
        """What the chunk that begins at `start` says of `tick`; behind its last action it stays there."""
        chunk, place = self._chunks[start], tick - start
        before = min(int(place), len(chunk) - 1)
        after, share = min(before + 1, len(chunk) - 1), place - int(place)
        if not share or after == before:
            return chunk[before].copy()
        return np.asarray(chunk[before] * (1 - share) + chunk[after] * share)

    def _running_chunk(self, tick: int, starts: list[int]) -> int:
        """First tick of the chunk to execute open loop, of those in `starts`: the one that runs until its turn is over,
        then the newest."""
        if self._adopted is not None:
            start, since = self._adopted
            if start in starts and since <= tick < since + self.execute_steps:
                return start
        self._adopted = (starts[-1], tick)
        return starts[-1]

    def coverage(self, tick: int) -> int:
        """How many chunks cover `tick`: 0 means that `action(tick)` is None."""
        return sum(start <= tick < start + len(chunk) for start, chunk in self._chunks.items())


def slowed(chunk: NDArray[np.floating], speed: float) -> NDArray[np.floating]:
    """A chunk (n, ...) stretched in time: action k comes k / `speed` ticks after its observation instead of k.

    In between it is interpolated: the same motion at `speed` (0..1] times the pace. `speed` 1 changes nothing.
    """
    if speed == 1 or not len(chunk):
        return chunk
    if not 0 < speed <= 1:
        raise ValueError(f"speed {speed!r} must be above 0 and at most 1")
    last = len(chunk) - 1
    place = np.minimum(np.arange(int(last / speed + 1e-9) + 1) * speed, last)  # of each tick, in trained steps
    before = np.minimum(place.astype(int), max(last - 1, 0))
    share = (place - before).reshape(-1, *[1] * (chunk.ndim - 1))
    return chunk[before] * (1 - share) + chunk[np.minimum(before + 1, last)] * share
