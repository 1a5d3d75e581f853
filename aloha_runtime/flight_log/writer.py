"""Everything that touches the disk, in one thread of its own: a disk that stalls keeps no message from being heard."""

import contextlib
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from mcap.records import Attachment

from aloha_runtime.flight_log import mcap_file, shelf, spool
from aloha_runtime.flight_log.channels import NS_PER_S, Channels
from aloha_runtime.flight_log.ring import Sealed
from aloha_runtime.flight_log.triggers import Event

WAITING = 30
"""Chunks that may wait for a slow disk: half a minute; what comes on top is in memory only."""
MEGABYTE = 1_000_000


@dataclass(frozen=True)
class Written:
    """A log that is on the disk, and the names of those that had to go for it."""

    path: Path
    removed: list[str]


class LogWriter:
    """Logs and spool of one recorder. `trouble`: what is wrong with the disk, empty when nothing is."""

    def __init__(self, folder: Path, run_dir: Path, channels: Channels, longest_ns: int, disk_mb: int) -> None:
        self.folder, self.trouble = folder, ""
        self._run_dir, self._channels = run_dir, channels
        self._longest_ns, self._most_bytes = longest_ns, disk_mb * MEGABYTE
        self._spool: spool.Spool | None = None
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="disk")
        self._appending: list[Future[None]] = []

    def begin(self) -> Future[list[Written]]:
        """Bring back what dead recorders left in the folder, then begin the spool; gives the logs that came of it."""
        return self._thread.submit(self._begin)

    def _begin(self) -> list[Written]:
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        shelf.remove_halves(self.folder)
        found = []
        for channels, chunks in spool.left_behind(self.folder):
            cause = "the recorder was killed, or the power was cut"
            event = Event("recovered", cause, chunks[-1].end_ns, "")
            found.append(self._write(channels, event, chunks, about(event, 0), ()))
        self._spool = spool.Spool(self.folder, self._run_dir, self._channels, self._longest_ns)
        return found

    def keep(self, chunk: Sealed) -> None:
        """Append a chunk to the spool, where there is one and the disk keeps up."""
        for done in [future for future in self._appending if future.done()]:
            self._appending.remove(done)
            error = done.exception()
            self.trouble = f"the last minutes are in memory only: {error}; free some of that disk" if error else ""
        if self._spool is not None and len(self._appending) < WAITING:
            self._appending.append(self._thread.submit(self._spool.append, chunk))

    def write(
        self, event: Event, chunks: Sequence[Sealed], kept: dict[str, str], attachments: Sequence[Attachment]
    ) -> Future[Written]:
        """Write a log; the future raises OSError."""
        return self._thread.submit(self._write_here, event, chunks, kept, attachments)

    def _write_here(
        self, event: Event, chunks: Sequence[Sealed], kept: dict[str, str], attachments: Sequence[Attachment]
    ) -> Written:
        """Write a log of our own: what it holds leaves the spool. A folder that could not be written at the start can
        be now, so the spool begins."""
        written = self._write(self._channels, event, chunks, kept, attachments)
        with contextlib.suppress(OSError):
            if self._spool is None:
                self._spool = spool.Spool(self.folder, self._run_dir, self._channels, self._longest_ns)
            else:
                self._spool.restart()
        return written

    def _write(
        self,
        channels: Channels,
        event: Event,
        chunks: Sequence[Sealed],
        kept: dict[str, str],
        attachments: Sequence[Attachment],
    ) -> Written:
        when = datetime.fromtimestamp(event.stamp_ns / NS_PER_S).astimezone()
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        path = shelf.publish(
            self.folder,
            shelf.name_for(event, when),
            lambda file: mcap_file.write(file, channels, chunks, kept, attachments),
        )
        return Written(path, shelf.make_room(self.folder, self._most_bytes, path))

    def close(self, forget: bool) -> None:
        """Wait for what is being written. `forget`: everything is in logs, so the spool may go."""
        self._thread.shutdown(wait=True)
        if self._spool is not None and forget:
            with contextlib.suppress(OSError):
                self._spool.close()


def about(event: Event, clock_offset_ns: int, **more: str) -> dict[str, str]:
    """Why a log was written, as its metadata. `event.stamp_ns` is wall time."""
    return {
        "kind": event.kind,
        "cause": event.cause,
        "mode": event.mode,
        "event_ns": str(event.stamp_ns),
        "clock_offset_ns": str(clock_offset_ns),
        **more,
    }
