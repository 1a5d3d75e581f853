"""The last minutes in memory, as finished MCAP chunks: writing a log is copying them, whatever it is that happened.

A message becomes JSON at once and a second of messages one compressed chunk; the oldest chunks go as new ones come, by
age and by bytes. Chunks are immutable, so that another thread may write them.
"""

import struct
import zlib
from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import zstandard
from mcap.data_stream import RecordBuilder
from mcap.opcode import Opcode
from mcap.records import Chunk, ChunkIndex, McapRecord, MessageIndex

COMPRESSION_LEVEL = 1
"""zstd's fastest that still halves the numbers of a joint state (docs/decisions.md)."""
MESSAGE = struct.Struct("<BQHIQQ")
"""Opcode, length, channel, sequence, log time, publish time (https://mcap.dev/spec): 1000 a second, so in one call."""
OPCODE_AND_LENGTH = 9
"""Bytes that the length in a record does not count."""
_SEQUENCE_MASK = 0xFFFFFFFF


@dataclass(frozen=True)
class Sealed:
    """One finished chunk. `record`: the Chunk record, `indexes`: the MessageIndex records behind it, `index_at`: where
    in them each channel's begins; `counts`: messages by channel; `start_ns`, `end_ns`: of its messages."""

    record: bytes
    indexes: bytes
    index_at: Mapping[int, int]
    counts: Mapping[int, int]
    start_ns: int
    end_ns: int
    compressed: int
    uncompressed: int

    @property
    def size(self) -> int:
        """Bytes in a file."""
        return len(self.record) + len(self.indexes)

    def entry(self, offset: int) -> ChunkIndex:
        """Its line in the summary of a file in which it begins at `offset`."""
        behind = offset + len(self.record)
        places = {channel: behind + at for channel, at in self.index_at.items()}
        return ChunkIndex(
            chunk_length=len(self.record),
            chunk_start_offset=offset,
            compression="zstd",
            compressed_size=self.compressed,
            message_end_time=self.end_ns,
            message_index_length=len(self.indexes),
            message_index_offsets=places,
            message_start_time=self.start_ns,
            uncompressed_size=self.uncompressed,
        )


class Ring:
    """The newest chunks, at most `longest_ns` and `max_bytes` of them, and one that is being filled."""

    def __init__(self, longest_ns: int, max_bytes: int) -> None:
        self._longest_ns, self._max_bytes = longest_ns, max_bytes
        self._chunks: deque[Sealed] = deque()
        self._forgotten = 0
        self._compressor = zstandard.ZstdCompressor(level=COMPRESSION_LEVEL)
        self.size = 0
        """Bytes of the finished chunks."""
        self._begin()

    def _begin(self) -> None:
        self._open = bytearray()
        self._places: dict[int, list[tuple[int, int]]] = {}

    def add(self, channel: int, stamp_ns: int, sequence: int, data: bytes) -> None:
        """Keep a message; `stamp_ns` is wall time."""
        self._places.setdefault(channel, []).append((stamp_ns, len(self._open)))
        length, number = MESSAGE.size - OPCODE_AND_LENGTH + len(data), sequence & _SEQUENCE_MASK
        self._open += MESSAGE.pack(Opcode.MESSAGE, length, channel, number, stamp_ns, stamp_ns)
        self._open += data

    def seal(self) -> Sealed | None:
        """Finish the open chunk and forget what is too old or too much; None when nothing came."""
        if not self._open:
            return None
        sealed = _sealed(bytes(self._open), self._places, self._compressor)
        self._begin()
        self._chunks.append(sealed)
        self.size += sealed.size
        while len(self._chunks) > 1 and self._over(sealed.end_ns):
            self.size -= self._chunks.popleft().size
            self._forgotten += 1
        return sealed

    def _over(self, now_ns: int) -> bool:
        return self.size > self._max_bytes or self._chunks[0].end_ns < now_ns - self._longest_ns

    @property
    def finished(self) -> int:
        """How many chunks there have been."""
        return self._forgotten + len(self._chunks)

    def since(self, stamp_ns: int, after: int = 0) -> list[Sealed]:
        """Finished chunks that hold something of this instant or later, without the first `after` there have been."""
        chunks = enumerate(self._chunks, self._forgotten)
        return [chunk for number, chunk in chunks if number >= after and chunk.end_ns >= stamp_ns]


def _sealed(data: bytes, places: dict[int, list[tuple[int, int]]], compressor: zstandard.ZstdCompressor) -> Sealed:
    stamps = [stamp_ns for entries in places.values() for stamp_ns, _ in entries]
    compressed = compressor.compress(data)
    chunk = Chunk(
        compression="zstd",
        data=compressed,
        message_end_time=max(stamps),
        message_start_time=min(stamps),
        uncompressed_crc=zlib.crc32(data),
        uncompressed_size=len(data),
    )
    return around(chunk, {channel: sorted(entries) for channel, entries in places.items()})


def to_bytes(records: Iterable[McapRecord]) -> bytes:
    """Records as they stand in a file."""
    builder = RecordBuilder()
    for record in records:
        record.write(builder)
    return bytes(builder.end())  # type: ignore[no-untyped-call]


def around(chunk: Chunk, places: Mapping[int, list[tuple[int, int]]]) -> Sealed:
    """A chunk with the index of its messages: (time, offset in the uncompressed chunk) by channel, in order of time."""
    indexes, index_at = RecordBuilder(), {}
    for channel, entries in places.items():
        index_at[channel] = indexes.count
        MessageIndex(channel, entries).write(indexes)
    return Sealed(
        record=to_bytes([chunk]),
        indexes=bytes(indexes.end()),  # type: ignore[no-untyped-call]
        index_at=index_at,
        counts={channel: len(entries) for channel, entries in places.items()},
        start_ns=chunk.message_start_time,
        end_ns=chunk.message_end_time,
        compressed=len(chunk.data),
        uncompressed=chunk.uncompressed_size,
    )
