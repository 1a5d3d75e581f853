"""recorder: demonstrations as episodes of a LeRobot dataset, one row and a picture a camera at every 50 Hz tick.

It sees what the policy sees at the same moment (`inputs.py`), and writes it two ticks later, when the tick's own action
is known. Whatever ends it, the
take under way is on disk (`data/open_episode.py`), and takes that are over are committed.
"""

import argparse
import os
from collections import deque
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from aloha_runtime import messages
from aloha_runtime.bus import RECORDER
from aloha_runtime.control.signs import SignDetector, hand_speed_rad_s
from aloha_runtime.control.sync import Missing, Observation
from aloha_runtime.control.take import SECOND_TICKS, Ending, Outcome, Phase, Take, TakeLimits
from aloha_runtime.control.teleop import action_convention
from aloha_runtime.data import quality
from aloha_runtime.data.frame_maker import FrameMaker, RecentStates, action_of
from aloha_runtime.data.layout import IMAGE_PREFIX
from aloha_runtime.data.recorded import ENVIRONMENT, FLAGS
from aloha_runtime.data.session import Ended, Session
from aloha_runtime.data.units import flat_names
from aloha_runtime.errors import DatasetError
from aloha_runtime.inputs import RigInputs
from aloha_runtime.messages import ArmsState, Health, Mode, RecorderState, Reply, Request, SimState
from aloha_runtime.realtime import Beat, Pacer
from aloha_runtime.ring_memory import Image
from aloha_runtime.robot import TICK_NS
from aloha_runtime.service import Service, run

SETTLED_TICKS = 2
"""A tick is written when it has been over for a tick: a policy sends its action up to 14 ms after the tick began, the
arms take it up within their cycle of 5 ms and say so after it. What comes later than that is late."""
CATCH_UP_TICKS = 8
"""Ticks made up after a stall: frame rings and states still reach back 0.16 s."""
DONE, AGAIN = 2, 3
"""Quick squeezes of both leader grippers: this take is done; not this one, again."""
SIM_DEPTH = 64
"""States of the simulated world that may wait: half a second."""
NICENESS = 5
"""Encoding gives way to the processes that move the arms."""
PUBLISH_EVERY = 5


class RecorderLoop:
    """`tick` at every beat."""

    def __init__(self, service: Service, session: Session, continuous: bool, intervenes: bool) -> None:
        """`continuous`: takes follow one another. `intervenes`: teleoperation means that a person took over."""
        rig = service.rig
        self.service, self.session, self.settings, self.intervenes = service, session, rig.recording, intervenes
        self.cameras = list(rig.cameras)
        lost, longest = (
            int(seconds * SECOND_TICKS) for seconds in (self.settings.lost_after_s, self.settings.longest_s)
        )
        self.take = Take(TakeLimits(lost, longest), continuous)
        self.inputs = RigInputs(service.bus, rig, self.cameras)
        self.states = RecentStates()
        self.mode = service.bus.subscribe(messages.MODE)
        self.leaders = service.bus.subscribe(messages.LEADERS)
        self.arms = service.bus.subscribe(messages.health_topic("arms@followers"))
        self.knows_objects = ENVIRONMENT in session.writer.info.vectors
        self.sim = service.bus.subscribe(messages.SIM_STATE, depth=SIM_DEPTH) if self.knows_objects else None
        self.objects: deque[SimState] = deque(maxlen=SIM_DEPTH)
        self.server = service.bus.server(RECORDER)
        self.state = service.bus.publisher(messages.RECORDER)
        self.sides = rig.led_sides
        self.signs = SignDetector(self.sides) if self.sides else None
        self.images: dict[str, Image] = {
            name: np.empty((*camera.shape, 3), np.uint8) for name, camera in rig.cameras.items()
        }
        self.features = session.writer.info.features
        names = self.features[FLAGS].names if FLAGS in self.features else None
        self.flag_names: list[str] | None = flat_names(names) or None
        self.frames = self._frame_maker(0)
        self.takes, self.ended = 0, Ended("", False, False)
        self.counts_before: dict[str, int] = {}
        self.began = ""
        self.last_tick = 0
        if session.writer.recovered:
            service.log.info("episode %d was found open: %d frames", session.episodes - 1, session.writer.recovered)
        if moved := session.writer.set_aside:
            service.log.warning("%d files that nobody can bring back were set aside: %s", len(moved), moved[0].parent)

    def tick(self, beat: Beat) -> None:
        """Orders, then every tick that is over and not recorded yet."""
        while (request := self.server.receive()) is not None:
            self.server.reply(self._answer(request))
        self.states.add(self.inputs.poll())
        self.inputs.look(beat.index)
        if self.sim is not None:
            self.objects.extend(self.sim.drain())
        newest = beat.index - SETTLED_TICKS
        first = max(self.last_tick + 1, newest - CATCH_UP_TICKS) if self.last_tick else newest
        self.frames.takes.skipped += first - self.last_tick - 1
        for tick in range(first, newest + 1):
            self._record(tick, beat.lateness_ns)
        self.last_tick = newest
        if beat.index % PUBLISH_EVERY == 0:
            self._publish()

    def finish(self) -> None:
        """Save the take under way and close the dataset."""
        if self.take.phase is Phase.TAKING:
            self._end(Ending(True, "the recorder was ended"))
        self.session.writer.close()

    def _record(self, tick: int, lateness_ns: int) -> None:
        heartbeat = self.mode.fresh(self.service.clock.now_ns())
        mode, cause = Mode.IDLE, "the supervisor is silent"
        if heartbeat is not None:
            mode, cause = Mode(heartbeat.mode), heartbeat.cause
        before = self.take.phase
        seen, repeated, missing = self._observe(tick)
        if before is Phase.TAKING:
            self._look_for_signs(tick, mode)
            if tick % SECOND_TICKS == 0 and self.session.disk_is_low:
                self.take.end(Ending(True, "the disk is nearly full"))
        if before is Phase.READY and not missing and action_of(self.states.states, tick) is None:
            missing = "no action of this tick"
        ending = self.take.tick(mode, cause, missing)
        if ending is not None:
            self._end(ending)
        if self.take.phase is not Phase.TAKING:
            return
        if before is not Phase.TAKING:
            self._begin(tick)
        row = self.frames.row(tick, seen, self.states.states, repeated, self._figures(), lateness_ns)
        pictures = {
            IMAGE_PREFIX + camera: None if camera in repeated else self.images[camera] for camera in self.cameras
        }
        known = {key: value for key, value in row.items() if key in self.features}  # an older dataset has not all
        if not self.session.add({**known, **pictures, **self._objects(tick)}):
            self.take.end(Ending(True, self.session.trouble))

    def _observe(self, tick: int) -> tuple[Observation | None, set[str], str]:
        """What is known of a tick, cameras whose last picture must stand in for it, and why it is not whole."""
        may_repeat = self.take.phase is Phase.TAKING
        repeated = {key.removeprefix(IMAGE_PREFIX) for key in self.session.writer.behind}
        missing = ""
        while isinstance(found := self.inputs.at(tick, repeated, self.images), Missing):
            missing = missing or found.reason
            if found.source not in self.cameras or not may_repeat:
                return None, set(self.cameras), missing
            repeated.add(found.source)
        return found[0], repeated, missing

    def _objects(self, tick: int) -> dict[str, np.ndarray]:
        """Where the simulated objects were at a tick, on a dataset that keeps it."""
        if not self.knows_objects:
            return {}
        size = self.session.writer.info.vectors[ENVIRONMENT]
        before = [state for state in self.objects if state.stamp_ns <= tick * TICK_NS]
        return {ENVIRONMENT: np.array(before[-1].environment_state if before else [0.0] * size, np.float32)}

    def _look_for_signs(self, tick: int, mode: Mode) -> None:
        leaders: ArmsState | None = self.leaders.fresh(self.service.clock.now_ns())
        if leaders is None or mode is not Mode.TELEOP or self.signs is None:
            return
        speed_rad_s = hand_speed_rad_s(leaders, self.sides)
        sign = self.signs.update(leaders.stamp_ns, action_convention(leaders), speed_rad_s)
        if sign is None:
            return
        count, began_ns = sign
        if count == DONE:
            self.take.end(Ending(True, "two squeezes", drop=max(0, tick - began_ns // TICK_NS)))
        elif count == AGAIN:
            self.take.end(Ending(False, "three squeezes"))

    def _frame_maker(self, first_tick: int) -> FrameMaker:
        return FrameMaker(self.cameras, first_tick, self.intervenes, self.flag_names)

    def _begin(self, tick: int) -> None:
        self.frames = self._frame_maker(tick)
        if self.signs is not None:
            self.signs.reset()
        self.counts_before = self._counts()
        self.began = datetime.now(UTC).isoformat(timespec="milliseconds")
        self.session.begin()

    def _end(self, ending: Ending) -> None:
        self.ended = self.session.end(ending, self._report)
        self.takes += 1
        self.service.log.info("%s", self.ended.text)
        self._publish()

    def _report(self, first: int, frames: int) -> dict[str, Any]:
        takes = self.frames.takes
        takes.counts = {name: count - self.counts_before.get(name, 0) for name, count in self._counts().items()}
        figures = quality.report(takes, frames, first, self.settings.quality, self.service.rig.current_ma())
        return {"began": self.began, **figures}

    def _answer(self, request: Request) -> Reply:
        taking, verb = self.take.phase is Phase.TAKING, request.verb
        keep_ticks = int(self.settings.keep_last_s * SECOND_TICKS)
        orders: dict[str, Callable[[], str]] = {
            "next": self._next,
            "keep": lambda: self._order(Ending(True, f"the last {self.settings.keep_last_s:.0f} s", last=keep_ticks)),
            "discard": lambda: self._order(Ending(False, "discarded")),
            "undo": lambda: self._order(Ending(False, "discarded")) if taking else self.session.undo(),
            **{
                outcome: lambda outcome=outcome: (  # type: ignore[misc]
                    self._order(Ending(True, outcome, outcome)) if taking else self.session.mark(outcome)
                )
                for outcome in (Outcome.SUCCESS, Outcome.FAILURE)
            },
        }
        if verb not in orders:
            return Reply(ok=False, text=f"unknown request {verb!r}; the recorder knows {', '.join(orders)}")
        try:
            return Reply(ok=True, text=orders[verb]())
        except DatasetError as error:
            return Reply(ok=False, text=str(error))

    def _next(self) -> str:
        if trouble := self.session.ready():
            self.take.cancel()
            raise DatasetError(trouble)
        self.take.next()
        return "the next take begins when the arms move"

    def _order(self, ending: Ending) -> str:
        if refusal := self.take.end(ending):
            raise DatasetError(refusal)
        return ending.cause

    def _counts(self) -> dict[str, int]:
        frames = self.inputs.frames
        return {
            "missed servo cycles": int(self._figures().get("incomplete_cycles", 0)),
            **{f"{name} frames lost": reader.dropped for name, reader in frames.items()},
            **{f"{name} frames overwritten": reader.overwritten for name, reader in frames.items()},
        }

    def _figures(self) -> dict[str, float]:
        report: Health | None = self.arms.latest()
        return report.figures if report is not None else {}

    def _publish(self) -> None:
        self.state.send(
            RecorderState(
                stamp_ns=self.service.clock.now_ns(),
                phase=self.take.phase,
                frames=self.take.frames,
                takes=self.takes,
                episodes=self.session.episodes,
                kept=self.ended.kept,
                last=self.ended.text,
                flagged=self.ended.flagged,
                trouble=self.session.trouble,
            )
        )


def main(service: Service) -> None:
    asked = service.arguments
    session = Session(asked.dataset, asked.task, keep_all=asked.continuous != "keep")
    loop = RecorderLoop(service, session, bool(asked.continuous), asked.intervenes)
    os.nice(NICENESS)
    pacer = Pacer(service.clock, TICK_NS)
    try:
        while not service.stopping:
            loop.tick(pacer.wait())
            service.report(pacer.figures, ok=not session.trouble, message=session.trouble)
    finally:
        loop.finish()


def extend(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--dataset", required=True, type=Path)
    parser.add_argument("--task", required=True)
    parser.add_argument("--continuous", choices=["", "save", "keep"], default="")
    parser.add_argument("--intervenes", action="store_true")


if __name__ == "__main__":
    run(main, extend)
