"""Part of a video as a video of its own, without encoding again wherever the packets allow it."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise
from pathlib import Path

import av
from av.container import InputContainer

from aloha_runtime.data.damaged import reads_files
from aloha_runtime.data.video import VideoReader
from aloha_runtime.data.video_encoder import Codec, VideoEncoder
from aloha_runtime.errors import DatasetError

SEEK_BACK_FRAMES = 32
"""A file is sought by decoding time, which precedes the time shown by at most the 16 frames that H.264 may reorder."""


@dataclass(frozen=True)
class Packets:
    """What a file holds, in decoding order: the frame number that each packet shows, and which of them are key frames.

    Frames are numbered by time stamp at the nominal rate, so that a file cut elsewhere counts from where it starts.
    """

    shown: tuple[int, ...]
    keys: frozenset[int]

    @property
    def frames(self) -> int:
        """Frames from the first on without a gap."""
        there = set(self.shown)
        return next(number for number in range(len(there) + 1) if number not in there)

    def can_copy(self, first: int, frames: int) -> bool:
        """Whether frames `first` to `first + frames` begin at a key frame and no packet between them shows another."""
        if first not in self.keys:
            return False
        begin = self.shown.index(first)
        return sorted(self.shown[begin : begin + frames]) == list(range(first, first + frames))


@reads_files
def packets(path: Path, fps: float) -> Packets:
    """Look at a file without decoding it; a file whose writer was killed counts as far as it goes.

    Raises DatasetError when it is no video.
    """
    shown, keys = [], set()
    try:
        with av.open(path) as container:
            for packet in container.demux(container.streams.video[0]):
                if packet.pts is None:
                    continue
                number = _number(packet, fps)
                shown.append(number)
                if packet.is_keyframe:
                    keys.add(number)
    except FileNotFoundError:
        raise DatasetError(f"Video file {path} is missing. Restore it from a copy of the dataset.") from None
    except (av.FFmpegError, IndexError) as error:
        raise DatasetError(f"{path} is not a readable video ({error}). Restore it from a copy.") from None
    return Packets(tuple(shown), frozenset(keys))


def cut(
    source: Path, target: Path, first: int, frames: int, fps: float, codec: Codec | None, found: Packets | None = None
) -> bool:
    """Frames `first` up to `first + frames` of `source` as the file `target`; True when packets were copied.

    Where they do not begin at a key frame they are encoded again, as `codec`, or without loss in the format that they
    have when it is None (depth, formats that this runtime does not record). `found`: what `packets` said of `source`,
    for a caller that cuts many pieces from one file. Raises DatasetError when `source` does not hold them.
    """
    found = found or packets(source, fps)
    if frames < 1 or first < 0 or not set(range(first, first + frames)) <= set(found.shown):
        raise DatasetError(
            f"{source} holds {found.frames} frames; frames {first} to {first + frames - 1} are not there."
        )
    if found.can_copy(first, frames):
        _copy(source, target, first, frames, fps)
        return True
    numbers, rate = range(first, first + frames), Fraction(fps).limit_denominator(1001)
    if codec is None:
        encode_exactly(source, target, numbers, fps, rate)
    else:
        encode(source, target, numbers, fps, codec, rate)
    return False


def _copy(source: Path, target: Path, first: int, frames: int, fps: float) -> None:
    with av.open(source) as given, av.open(target, "w", format="mp4") as made:
        copied = made.add_stream_from_template(given.streams.video[0], opaque=True)
        for packet in taken(given, first, frames, fps):
            packet.stream = copied
            made.mux(packet)


def taken(given: InputContainer, first: int, frames: int, fps: float, to: int = 0) -> Iterator[av.Packet]:
    """The packets of `frames` frames from the key frame `first` on, as `Packets.can_copy` allows, in decoding order and
    with the times of frames from `to` on."""
    stream = given.streams.video[0]
    assert stream.time_base is not None
    given.seek(max(round((first - SEEK_BACK_FRAMES) / fps / stream.time_base), 0), stream=stream)
    left, shift = frames, 0
    for packet in given.demux(stream):
        if left == 0:
            return
        if packet.pts is None or (left == frames and not (packet.is_keyframe and _number(packet, fps) == first)):
            continue
        if left == frames:
            shift = round(to / fps / packet.time_base) - packet.pts
        packet.pts += shift
        packet.dts = None if packet.dts is None else packet.dts + shift
        left -= 1
        yield packet


def _number(packet: av.Packet, fps: float) -> int:
    assert packet.pts is not None
    return round(float(packet.pts * packet.time_base) * fps)


def encode(source: Path, target: Path, numbers: Sequence[int], fps: float, codec: Codec, rate: Fraction) -> None:
    """Frames `numbers` of `source`, whose rate is `fps`, decoded and encoded again as `codec` at `rate`."""
    reader = VideoReader(source, fps)
    image = reader.frame(numbers[0] / fps)
    height, width = image.shape[:2]
    encoder = VideoEncoder(target, height, width, rate, codec)
    try:
        encoder.put(image)
        for before, number in pairwise(numbers):
            if number == before:
                encoder.repeat()
            else:
                encoder.put(reader.frame(number / fps))
    except BaseException:
        encoder.discard()
        raise
    finally:
        reader.close()
    encoder.finish()


EXACT = {
    "hevc": ("libx265", {"x265-params": "lossless=1:log-level=error:pools=1:frame-threads=1"}),
    "h264": ("libx264", {"qp": "0", "preset": "veryfast"}),
    "vp9": ("libvpx-vp9", {"lossless": "1", "b:v": "0"}),
    "ffv1": ("ffv1", {}),
}
"""Encoders that keep every value, by the codec of a video."""


def encode_exactly(source: Path, target: Path, numbers: Sequence[int], fps: float, rate: Fraction) -> None:
    """Frames `numbers` of `source`, which never fall, each value as it was, in its codec and pixel format.

    Raises DatasetError for a codec that has no encoder without loss here.
    """
    with av.open(source) as given, av.open(target, "w", format="mp4") as made:
        stream = given.streams.video[0]
        name, kind = stream.codec_context.codec.canonical_name, stream.codec_context.pix_fmt or "yuv420p"
        if name not in EXACT:
            raise DatasetError(
                f"{source} is {name}, which cannot be encoded again without loss; frame {numbers[0]} is no key frame,"
                " at which it could be cut as it is. Cut at a key frame."
            )
        encoder, options = EXACT[name]
        out = made.add_stream(encoder, rate=rate)
        out.width, out.height, out.pix_fmt = stream.width, stream.height, kind
        out.codec_context.time_base, out.codec_context.gop_size, out.codec_context.options = 1 / rate, 2, options
        out.codec_context.max_b_frames = 0
        done = 0
        for frame in given.decode(stream):
            shown = round(float(frame.pts * stream.time_base) * fps)
            while done < len(numbers) and numbers[done] == shown:
                frame.pts, frame.time_base, frame.pict_type = done, 1 / rate, 0
                made.mux(out.encode(frame))
                done += 1
        made.mux(out.encode(None))
    if done < len(numbers):
        raise DatasetError(f"{source} does not show frame {numbers[done]}. Restore it from a copy of the dataset.")
