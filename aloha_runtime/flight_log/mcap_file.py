"""A log as an MCAP file (https://mcap.dev/spec), from chunks that are finished already.

The records are those of the `mcap` package; its own writer takes single messages only, which for five minutes of a rig
would be ten seconds of work at the very moment at which something has gone wrong.
"""

import zlib
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import IO

from mcap.opcode import Opcode
from mcap.records import (
    Attachment,
    AttachmentIndex,
    DataEnd,
    Footer,
    Header,
    McapRecord,
    Metadata,
    MetadataIndex,
    Statistics,
    SummaryOffset,
)
from mcap.writer import MCAP0_MAGIC

import aloha_runtime
from aloha_runtime.flight_log.channels import Channels
from aloha_runtime.flight_log.ring import Sealed, to_bytes

METADATA = "aloha"
"""Name of the record that says why a log was written."""
_FOOTER_CRC_BYTES = 4


def head(channels: Channels) -> bytes:
    """What a file begins with: it, and any number of chunks behind it, is an MCAP file that only lacks its end."""
    records = [Header("", f"aloha_runtime {aloha_runtime.__version__}"), *channels.schemas, *channels.channels]
    return MCAP0_MAGIC + to_bytes(records)


def write(
    file: IO[bytes],
    channels: Channels,
    chunks: Sequence[Sealed],
    about: dict[str, str],
    attachments: Iterable[Attachment] = (),
) -> None:
    """A whole file. `about` is its metadata."""
    file.write(head(channels))
    entries: list[McapRecord] = []
    for chunk in chunks:
        entries.append(chunk.entry(file.tell()))
        file.write(chunk.record)
        file.write(chunk.indexes)
    kept: list[McapRecord] = []
    for attachment in attachments:
        offset, data = file.tell(), to_bytes([attachment])
        file.write(data)
        kept.append(
            AttachmentIndex(
                offset=offset,
                length=len(data),
                log_time=attachment.log_time,
                create_time=attachment.create_time,
                data_size=len(attachment.data),
                name=attachment.name,
                media_type=attachment.media_type,
            )
        )
    offset, data = file.tell(), to_bytes([Metadata(METADATA, about)])
    file.write(data + to_bytes([DataEnd(0)]))
    described: list[McapRecord] = [MetadataIndex(offset, len(data), METADATA)]
    statistics = _statistics(channels, chunks, len(kept))
    _write_summary(file, [channels.schemas, channels.channels, [statistics], entries, kept, described])


def _write_summary(file: IO[bytes], groups: Sequence[Sequence[McapRecord]]) -> None:
    """Groups of records of one kind, where each lies, and the footer with the checksum of it all."""
    start = file.tell()
    summary, offsets = b"", []
    for group in groups:
        data = to_bytes(group)
        if data:
            offsets.append(SummaryOffset(Opcode(data[0]), start + len(summary), len(data)))
        summary += data
    footer = Footer(summary_start=start, summary_offset_start=start + len(summary), summary_crc=0)
    summary += to_bytes(offsets)
    footer.summary_crc = zlib.crc32(summary + to_bytes([footer])[:-_FOOTER_CRC_BYTES])
    file.write(summary + to_bytes([footer]) + MCAP0_MAGIC)


def _statistics(channels: Channels, chunks: Sequence[Sealed], attachments: int) -> Statistics:
    counts: Counter[int] = Counter()
    for chunk in chunks:
        counts.update(chunk.counts)
    return Statistics(
        attachment_count=attachments,
        channel_count=len(channels.channels),
        channel_message_counts=dict(counts),
        chunk_count=len(chunks),
        message_count=counts.total(),
        message_end_time=max((chunk.end_ns for chunk in chunks), default=0),
        message_start_time=min((chunk.start_ns for chunk in chunks), default=0),
        metadata_count=1,
        schema_count=len(channels.schemas),
    )
