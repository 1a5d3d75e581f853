"""flight: the flight recorder. The last minutes of every message, written as an MCAP file when something happens.

It only listens. Nobody waits for it, it gives way to everyone else on the machine, and it goes on without a supervisor.
"""

import os
import time
from concurrent.futures import Future
from dataclasses import replace
from pathlib import Path

from mcap.records import Attachment

import aloha_runtime
from aloha_runtime import config, messages
from aloha_runtime.bus import FLIGHT, Subscriber
from aloha_runtime.flight_log import channels, thumbnails
from aloha_runtime.flight_log.due import Due
from aloha_runtime.flight_log.ring import Ring
from aloha_runtime.flight_log.triggers import Event, Life, Line, Triggers
from aloha_runtime.flight_log.writer import LogWriter, Written, about
from aloha_runtime.messages import MS, Health, Message, ModeHeartbeat, Reply
from aloha_runtime.processes.table import every_process
from aloha_runtime.realtime import NS_PER_S, Pacer
from aloha_runtime.rings import FrameSubscriber
from aloha_runtime.run_directory import default_log_dir, lock_holder
from aloha_runtime.service import Service, run

PERIOD_NS = 50 * MS
"""20 looks a second cost less than one a message; stamps are those of the messages."""
SEAL_NS = NS_PER_S
DEPTH = 1000
"""Messages of a topic that may wait: 5 s of the fastest."""
POLITE = 10
"""Niceness: of two who want the processor it gets a tenth."""
STRANGE_NS = 60 * NS_PER_S
"""A stamp so far from now is none; such a message is filed under its arrival."""
MEGABYTE = 1_000_000


class FlightLoop:
    """One look a turn. `written`: logs since the start."""

    def __init__(self, service: Service) -> None:
        rig, bus, wishes = service.rig, service.bus, service.rig.flight
        assert wishes is not None, "the table starts this process on rigs with a flight recorder only"
        self.service, self.wishes = service, wishes
        cameras = {name: messages.camera_topic(name, camera.fps) for name, camera in rig.cameras.items()}
        others = [*messages.TOPICS, *(messages.health_topic(name) for name in every_process(rig))]
        self.channels = channels.Channels([*others, *cameras.values()], cameras)
        self.cameras = {name: FrameSubscriber(bus, topic, DEPTH) for name, topic in cameras.items()}
        readers = [*(bus.subscribe(topic, DEPTH) for topic in others), *(c.messages for c in self.cameras.values())]
        self.readers: dict[int, Subscriber] = {self.channels.ids[channels.name_of(r.topic)]: r for r in readers}
        self.server = bus.server(FLIGHT)
        longest_ns = int(wishes.minutes * 60 * NS_PER_S)
        self.ring = Ring(longest_ns, wishes.memory_mb * MEGABYTE)
        self.due = Due(int(wishes.after_s * NS_PER_S), longest_ns)
        self.triggers = Triggers(service.clock.now_ns())
        self.offset_ns = _wall_ns() - service.clock.now_ns()
        folder = Path(wishes.folder) if wishes.folder else default_log_dir()
        self.writer = LogWriter(folder, service.run_dir, self.channels, longest_ns, wishes.disk_mb)
        self.written = self.lines = 0
        self._rig_file = config.find(service.arguments.rig).read_bytes()
        self._next_seal_ns = self._next_picture_ns = 0
        self._beginning: Future[list[Written]] | None = self.writer.begin()
        self._writing: tuple[Future[Written], list[Event], int] | None = None
        """The log, what it tells of, and how many chunks of the ring are in it or in those before."""
        self._kept, self._before = 0, ""
        """Chunks of the ring that are in logs, and the name of the last of these."""
        self._asked = False
        self._trouble = ""

    def turn(self, now_ns: int) -> None:
        """Everything that came; then what it means."""
        self._hear(now_ns)
        self._see(now_ns)
        self.triggers.look(now_ns, self._life)
        self._note(now_ns)
        if now_ns >= self._next_seal_ns:
            self._next_seal_ns = now_ns + SEAL_NS
            self._seal()
        self._finish(now_ns)
        self._listen(now_ns)
        if self._writing is None and self.due.ready(now_ns):
            self._write(now_ns)

    def _hear(self, now_ns: int) -> None:
        for channel, reader in self.readers.items():
            message: Message
            for message in reader.drain():
                if isinstance(message, ModeHeartbeat):
                    self.triggers.heartbeat(message)
                elif isinstance(message, Health):
                    self.triggers.health(message)
                strange = abs(message.stamp_ns - now_ns) > STRANGE_NS
                stamp_ns = (now_ns if strange else message.stamp_ns) + self.offset_ns
                self.ring.add(channel, stamp_ns, message.seq, channels.encoded(message))

    def _see(self, now_ns: int) -> None:
        """A thumbnail of the newest frame of each camera, when one is due."""
        if not self.wishes.thumbnails_hz or now_ns < self._next_picture_ns:
            return
        self._next_picture_ns = now_ns + int(NS_PER_S / self.wishes.thumbnails_hz)
        for name, camera in self.cameras.items():
            info = camera.fresh(now_ns)
            image = camera.pixels(info) if info is not None and info.encoding == "ring" else None
            if info is not None and image is not None:
                stamp_ns = info.stamp_ns + self.offset_ns
                picture = channels.thumbnail(stamp_ns, name, thumbnails.jpeg(thumbnails.shrink(image)))
                self.ring.add(self.channels.ids[channels.thumbnail_name(name)], stamp_ns, info.seq, picture)

    def _life(self, name: str) -> Life:
        """What has become of a process that is not heard: the kernel keeps its lock as long as it lives."""
        lock = self.service.run_dir / f"{messages.health_topic(name).name}.lock"
        if lock_holder(lock) is not None:
            return "lives"
        return "died" if lock.exists() else "ended"

    def _note(self, now_ns: int) -> None:
        """Lines into the log, events to those that a log is due for."""
        for line in self.triggers.lines:
            self._say(line)
        self.triggers.lines.clear()
        for event in self.triggers.events:
            self.due.add(event, now_ns)
        self.triggers.events.clear()

    def _say(self, line: Line) -> None:
        self.lines += 1
        stamp_ns = line.stamp_ns + self.offset_ns
        data = channels.line(stamp_ns, line.level, line.process, line.text)
        self.ring.add(self.channels.ids[channels.LOG], stamp_ns, self.lines, data)

    def _seal(self) -> None:
        chunk = self.ring.seal()
        if chunk is not None:
            self.writer.keep(chunk)

    def _write(self, now_ns: int) -> None:
        """Begin to write the log that is due."""
        self._seal()
        main, told = self.due.main, list(self.due.events)
        event = replace(main, stamp_ns=main.stamp_ns + self.offset_ns)
        kept = about(
            event,
            self.offset_ns,
            also="; ".join(other.cause for other in told if other is not main),
            rig=self.service.rig.name,
            version=aloha_runtime.__version__,
            wall_step_s=f"{(_wall_ns() - now_ns - self.offset_ns) / NS_PER_S:.3f}",
            lost=str(self._lost()),
            continues=self._before,
        )
        rig_file = Attachment(event.stamp_ns, event.stamp_ns, "rig.yaml", "text/yaml", self._rig_file)
        chunks = self.ring.since(self.due.begin_ns(now_ns) + self.offset_ns, after=self._kept)
        self._writing = self.writer.write(event, chunks, kept, [rig_file]), told, self.ring.finished

    def _finish(self, now_ns: int) -> None:
        """What has become of what was being written."""
        if self._beginning is not None and self._beginning.done():
            error = self._beginning.exception()
            self._trouble = f"cannot keep logs in {self.writer.folder}: {error}" if error else ""
            for found in [] if error else self._beginning.result():
                self._tell(found)
            self._beginning = None
        if self._writing is None or not self._writing[0].done():
            return
        future, told, finished = self._writing
        self._writing, error = None, future.exception()
        if error is None:
            self._trouble = ""
            self.due.written(told, now_ns)
            text = self._tell(future.result())
            self._kept, self._before = finished, future.result().path.name
        else:
            text = self._trouble = f"a log cannot be written: {error}; make room, or set another `flight.folder`"
            self.due.failed(told, now_ns)
        if self._asked and any(event.kind == "saved" for event in told):
            self.server.reply(Reply(ok=error is None, text=text))
            self._asked = False

    def _tell(self, found: Written) -> str:
        self.written += 1
        self.service.log.info("wrote %s", found.path)
        for name in found.removed:
            self.service.log.info("removed %s: logs took more than flight.disk_mb (%d)", name, self.wishes.disk_mb)
        return str(found.path)

    def _listen(self, now_ns: int) -> None:
        """An operator's wish; the answer comes when the log is on the disk."""
        request = None if self._asked else self.server.receive()
        if request is None:
            return
        if request.verb != "save":
            self.server.reply(Reply(ok=False, text=f"unknown request {request.verb!r}; known is save"))
            return
        self._asked = True
        cause = request.argument or f"asked for by {request.sender or 'somebody'}"
        self.due.add(Event("saved", cause, now_ns, self.triggers.mode), now_ns)

    def _lost(self) -> int:
        return sum(reader.dropped for reader in self.readers.values())

    def trouble(self) -> str:
        """What is wrong with the logs; empty when all is well."""
        return self._trouble or self.writer.trouble

    def figures(self) -> dict[str, float]:
        """Named numbers for the health report."""
        return {"ring_mb": self.ring.size / MEGABYTE, "logs": self.written, "messages_lost": self._lost()}

    def end(self, now_ns: int) -> None:
        """Write what is due, at once; then the ring's copy on the disk may go."""
        self._hear(now_ns)
        self.triggers.ending(now_ns)
        self._note(now_ns)
        if self._writing is not None:
            self._writing[0].exception()
            self._finish(now_ns)
        if self.due.events:
            self._write(now_ns)
            assert self._writing is not None
            self._writing[0].exception()
            self._finish(now_ns)
        self._seal()
        self.writer.close(forget=not self.due.events)


def _wall_ns() -> int:
    """Time of day, asked for once: stamps stay monotonic, and a log's have one offset to the wall from end to end."""
    return time.clock_gettime_ns(time.CLOCK_REALTIME)


def main(service: Service) -> None:
    loop = FlightLoop(service)
    os.nice(POLITE)
    pacer = Pacer(service.clock, PERIOD_NS)
    try:
        while not service.stopping:
            beat = pacer.wait()
            loop.turn(beat.deadline_ns + beat.lateness_ns)
            trouble = loop.trouble()
            service.report(loop.figures, ok=not trouble, message=trouble)
    finally:
        loop.end(service.clock.now_ns())


if __name__ == "__main__":
    run(main)
