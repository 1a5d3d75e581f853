"""Inference in a thread of its own, so that the 50 Hz tick never waits for the network longer than it chooses to."""

import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from aloha_runtime.act.policy import ACTPolicy

Predict = Callable[[Mapping[str, Any]], NDArray[np.float32]]
"""Observation in raw units -> chunk (n, 14) in raw units."""
MayPredict = Callable[[Mapping[str, Any]], NDArray[np.float32] | None]
"""The same; None: there will be none for this one (a remote policy's link is cut)."""

WARM_UP = 3
"""Inferences on zeros before the first real one: memory is allocated and kernels are chosen by then."""

USUAL_SHARE = 0.1
"""Weight of the newest duration in the running mean of durations: about the last ten count."""


@dataclass(frozen=True)
class Chunk:
    """A predicted chunk. `tick`: the tick of its observation and of its first action. `actions`: (n, 14)."""

    tick: int
    actions: NDArray[np.float32]
    observation_stamp_ns: int
    duration_ns: int


class InferenceWorker:
    """Newest observation in, chunks out. An observation that was not begun yet is replaced by a newer one.

    An error of the network is raised by the next call of `take`, in the caller's thread.
    """

    def __init__(self, predict: MayPredict) -> None:
        self._predict = predict
        self._condition = threading.Condition()
        self._next: tuple[int, int, Mapping[str, Any]] | None = None
        self._done: list[Chunk] = []
        self._newest_done = -1
        self._begun_ns: int | None = None
        self._error: BaseException | None = None
        self._closing = False
        self.usual_ns = 0
        """Running mean of the duration of one inference."""
        self._thread = threading.Thread(target=self._run, name="inference", daemon=True)
        self._thread.start()

    def offer(self, tick: int, observation_stamp_ns: int, observation: Mapping[str, Any]) -> None:
        """Hand over the observation of `tick`; never blocks."""
        with self._condition:
            self._next = (tick, observation_stamp_ns, observation)
            self._condition.notify_all()

    def take(self, tick: int, timeout_s: float | None) -> list[Chunk]:
        """All chunks finished since the last call, waiting up to `timeout_s` (None: for ever) for that of `tick`."""
        with self._condition:
            self._condition.wait_for(lambda: self._newest_done >= tick or self._error is not None, timeout_s)
            if self._error is not None:
                raise self._error
            done, self._done = self._done, []
            return done

    def running_ns(self) -> int:
        """How long the inference now under way has been running (wall time); 0 when none is."""
        begun = self._begun_ns
        return 0 if begun is None else time.monotonic_ns() - begun

    def close(self) -> None:
        with self._condition:
            self._closing = True
            self._condition.notify_all()
        self._thread.join(timeout=2.0)

    def _run(self) -> None:
        while True:
            with self._condition:
                self._condition.wait_for(lambda: self._next is not None or self._closing)
                if self._closing or self._next is None:
                    return
                (tick, stamp_ns, observation), self._next = self._next, None
                begun_ns = self._begun_ns = time.monotonic_ns()
            try:
                actions = self._predict(observation)
            except BaseException as error:  # handed to the tick, which names it; a dead thread would say nothing
                with self._condition:
                    self._error = error
                    self._condition.notify_all()
                return
            with self._condition:
                self._begun_ns = None
                if actions is None:
                    continue
                duration = time.monotonic_ns() - begun_ns
                self.usual_ns += int((duration - self.usual_ns) * (USUAL_SHARE if self.usual_ns else 1.0))
                self._done.append(Chunk(tick, actions, stamp_ns, duration))
                self._newest_done = max(self._newest_done, tick)
                self._condition.notify_all()


def predictor(policy: ACTPolicy, threads: int) -> Predict:
    """A policy as a plain function on arrays, on `threads` CPU threads, warmed up for its first tick."""
    torch.set_num_threads(threads)

    def predict(observation: Mapping[str, Any]) -> NDArray[np.float32]:
        return np.asarray(policy.predict_action_chunk(observation).cpu().numpy(), dtype=np.float32)

    blank = {name: np.zeros(shape, dtype=np.float32) for name, shape in policy.config.input_shapes.items()}
    for _ in range(WARM_UP):
        predict(blank)
    return predict
