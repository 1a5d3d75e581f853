"""A log read again: why it was written, and its messages as they were sent."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import zstandard
from mcap.exceptions import McapError
from mcap.reader import SeekingReader
from mcap.records import Channel
from mcap.summary import Summary

from aloha_runtime.damaged import CONTENT
from aloha_runtime.errors import LogError
from aloha_runtime.flight_log import shelf
from aloha_runtime.flight_log.channels import NS_PER_S
from aloha_runtime.flight_log.mcap_file import METADATA

LONGEST_RECORD = 256 << 20
"""Bytes of one record that are believed; those of a recorder have less than one megabyte."""
DAMAGED: tuple[type[Exception], ...] = (McapError, zstandard.ZstdError, OSError, *CONTENT)
NAN = float("nan")
S = TypeVar("S", bound=msgspec.Struct)


@dataclass(frozen=True)
class Cause:
    """Why a log was written. `event_ns`: wall time of what happened; `start_ns`, `end_ns`: of the messages."""

    kind: str
    cause: str
    mode: str
    also: str
    rig: str
    event_ns: int
    start_ns: int
    end_ns: int
    lost: int
    wall_step_s: float
    continues: str
    """Name of the log that holds what came before; empty where this one holds all there was."""

    @property
    def span_s(self) -> float:
        return (self.end_ns - self.start_ns) / NS_PER_S


class FlightLog:
    """One log. Raises LogError, which names the file, where it is not what it should be. A context manager."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file = None
        try:
            self._file = path.open("rb")
            self._reader = SeekingReader(self._file, validate_crcs=True, record_size_limit=LONGEST_RECORD)
            summary = self._reader.get_summary()
            found = {record.name: record.metadata for record in self._reader.iter_metadata()}
            if summary is None or summary.statistics is None or METADATA not in found:
                raise ValueError("it was not written by a flight recorder")
            self._summary: Summary = summary
            self.about = _cause(
                found[METADATA], summary.statistics.message_start_time, summary.statistics.message_end_time
            )
        except DAMAGED as error:
            self.close()
            raise LogError(
                f"log {path} cannot be read: {error or type(error).__name__}; see `aloha log list`"
            ) from None

    @property
    def channels(self) -> dict[str, Channel]:
        """By name, such as `/followers`."""
        return {channel.topic: channel for channel in self._summary.channels.values()}

    def counts(self) -> dict[str, int]:
        """Messages by channel; those without any are left out."""
        assert self._summary.statistics is not None
        counted = self._summary.statistics.channel_message_counts
        return {name: counted[channel.id] for name, channel in self.channels.items() if counted.get(channel.id)}

    def raw(
        self, *names: str, start_ns: int | None = None, end_ns: int | None = None
    ) -> Iterator[tuple[str, int, int, bytes]]:
        """Messages of these channels (all when none is named) in order of time: name, wall time, sequence, JSON."""
        first = None if start_ns is None else max(0, start_ns)
        try:
            for _, channel, message in self._reader.iter_messages(
                names or None, starting_at=first, ending_before=end_ns
            ):
                yield channel.topic, message.log_time, message.sequence, message.data
        except DAMAGED as error:
            raise LogError(f"log {self.path} is damaged: {error}") from None

    def messages(
        self, name: str, kind: type[S], start_ns: int | None = None, end_ns: int | None = None
    ) -> Iterator[tuple[int, S]]:
        """Messages of one channel with their wall times."""
        for _, stamp_ns, _, data in self.raw(name, start_ns=start_ns, end_ns=end_ns):
            yield stamp_ns, decoded(data, kind)

    def close(self) -> None:
        if self._file is not None:
            self._file.close()

    def __enter__(self) -> "FlightLog":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def decoded(data: bytes, kind: type[S]) -> S:
    """A message from its JSON, null among numbers back as NaN. LogError when it is none of this kind."""
    try:
        return msgspec.json.decode(data, type=kind)
    except msgspec.ValidationError:
        pass
    except msgspec.DecodeError as error:
        raise LogError(f"a message is damaged: {error}") from None
    try:
        return msgspec.convert(_with_nan(msgspec.json.decode(data), kind), kind)
    except msgspec.ValidationError as error:
        raise LogError(f"a message is no {kind.__name__}: {error}; it is from another version") from None


def _with_nan(value: Any, kind: Any) -> Any:
    """NaN in place of null where a number belongs."""
    if value is None:
        return NAN if kind is float else None
    if isinstance(value, list):
        return [NAN if item is None else item for item in value]
    if isinstance(value, dict):
        kinds = {field.name: field.type for field in msgspec.structs.fields(kind)} if _is_struct(kind) else {}
        return {key: _with_nan(item, kinds.get(key, float)) for key, item in value.items()}
    return value


def _is_struct(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, msgspec.Struct)


def _cause(found: dict[str, str], start_ns: int, end_ns: int) -> Cause:
    return Cause(
        kind=found["kind"],
        cause=found["cause"],
        mode=found["mode"],
        also=found.get("also", ""),
        rig=found.get("rig", ""),
        event_ns=int(found["event_ns"]),
        start_ns=start_ns,
        end_ns=end_ns,
        lost=int(found.get("lost", 0)),
        wall_step_s=float(found.get("wall_step_s", 0)),
        continues=found.get("continues", ""),
    )


def find(folder: Path, name: str) -> Path:
    """A log by its name, part of it, its path, or `last`; LogError naming what there is."""
    if name.endswith(shelf.SUFFIX) and Path(name).is_file():
        return Path(name)
    there = shelf.logs(folder)
    if not there:
        raise LogError(f"no logs in {folder}: the recorder writes one when the arms are stopped, or `aloha log save`")
    if name == "last":
        return there[-1]
    fitting = [path for path in there if name in path.name]
    if len(fitting) != 1:
        listed = ", ".join(path.name for path in (fitting or there)[-5:])
        what = "no log is" if not fitting else f"{len(fitting)} logs are"
        raise LogError(f"{what} named {name!r} in {folder}: give one of {listed}, or `last`")
    return fitting[0]
