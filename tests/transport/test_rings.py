"""Frame rings: what is read is what was written, whole, or nothing and counted; and the ways a writer can end."""

import errno
import json
import os
from collections.abc import Callable
from multiprocessing.process import BaseProcess
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from transport_workers import publish_frames, until, verify_frames

from aloha_runtime.bus import Bus
from aloha_runtime.errors import TransportError
from aloha_runtime.messages import FrameInfo, camera_topic
from aloha_runtime.realtime import WallClock
from aloha_runtime.ring_memory import RingReader, RingWriter
from aloha_runtime.rings import FramePublisher, FrameSubscriber
from aloha_runtime.run_directory import SHARED_MEMORY, ring_prefix

Spawn = Callable[..., BaseProcess]
TOP = camera_topic("top")


def picture(seed: int, height: int = 4, width: int = 5) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


@given(hnp.arrays(np.uint8, st.tuples(st.integers(1, 70), st.integers(1, 70), st.just(3))), st.integers(0, 2**62))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=30, deadline=None)
def test_pixels_come_out_as_they_went_in(run_dir: Path, image: np.ndarray, stamp_ns: int) -> None:
    writer, reader = RingWriter(run_dir, "top", image.shape[:2], slots=2), RingReader()
    try:
        info = writer.write(image, stamp_ns)
        assert (info.height, info.width, info.stamp_ns, info.seq, info.camera) == (*image.shape[:2], stamp_ns, 1, "top")
        np.testing.assert_array_equal(reader.read(info), image)
        view = reader.view(info)
        assert view is not None
        assert (view.valid(), view.stamp_ns) == (True, stamp_ns)
        np.testing.assert_array_equal(view.image, image)
    finally:
        writer.close()


def test_every_slot_is_used_and_readable_until_it_comes_round(bus: Bus, run_dir: Path) -> None:
    writer, reader = bus.own(RingWriter(run_dir, "top", (4, 5), slots=4)), RingReader()
    infos = [writer.write(picture(seed), seed) for seed in range(10)]
    for seed, info in enumerate(infos[-4:], start=6):
        np.testing.assert_array_equal(reader.read(info), picture(seed))
    assert reader.overwritten == 0
    assert [reader.read(info) for info in infos[:-4]] == [None] * 6
    assert reader.overwritten == 6


def test_read_into_a_buffer_of_the_caller(bus: Bus, run_dir: Path) -> None:
    writer = bus.own(RingWriter(run_dir, "top", (4, 5)))
    out = np.empty((4, 5, 3), np.uint8)
    assert RingReader().read(writer.write(picture(1), 0), out) is out
    np.testing.assert_array_equal(out, picture(1))


def test_a_view_overwritten_during_its_use_says_so(bus: Bus, run_dir: Path) -> None:
    writer = bus.own(RingWriter(run_dir, "top", (4, 5), slots=2))
    view = RingReader().view(writer.write(picture(1), 0))
    assert view is not None
    writer.write(picture(2), 0)
    assert view.valid()
    writer.write(picture(3), 0)
    assert not view.valid()
    with pytest.raises(ValueError, match="read-only"):
        view.image[0] = 0


def test_a_copy_overwritten_half_way_is_not_returned(bus: Bus, run_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    writer, reader = bus.own(RingWriter(run_dir, "top", (4, 5), slots=1)), RingReader()
    info = writer.write(picture(1), 0)
    copy, interrupted = np.copyto, []

    def slow_copy(target: np.ndarray, source: np.ndarray) -> None:
        copy(target[:2], source[:2])
        if not interrupted:  # the reader's copy; the writer's own comes in between
            interrupted.append(True)
            writer.write(picture(2), 0)
        copy(target[2:], source[2:])

    monkeypatch.setattr(np, "copyto", slow_copy)
    assert reader.read(info) is None
    assert reader.overwritten == 1


def test_a_frame_still_being_written_is_not_returned(bus: Bus, run_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    writer, reader = bus.own(RingWriter(run_dir, "top", (4, 5), slots=1)), RingReader()
    early = FrameInfo(stamp_ns=0, seq=1, camera="top", height=4, width=5, ring=writer.name, slot=0)
    copy, seen = np.copyto, []

    def watched_copy(target: np.ndarray, source: np.ndarray) -> None:
        seen.append(reader.view(early))
        copy(target, source)

    monkeypatch.setattr(np, "copyto", watched_copy)
    info = writer.write(picture(1), 0)
    assert seen == [None]
    assert reader.view(info) is not None


@pytest.mark.parametrize(
    "image",
    [picture(0, 5, 4), np.zeros((4, 5), np.uint8), np.zeros((4, 5, 3), np.float32), np.zeros((4, 5, 4), np.uint8)],
)
def test_frames_of_another_shape_or_type_are_refused(bus: Bus, image: np.ndarray) -> None:
    for inline in (None, "raw"):
        with Bus(bus.run_dir, WallClock()) as own, pytest.raises(ValueError, match="camera top"):
            FramePublisher(own, TOP, (4, 5, 3), inline=inline).send(image, 0)


@pytest.mark.parametrize("name", ["", "aloha-ring-none", "../../etc/passwd", "/etc/passwd", "aloha-ring-../x"])
def test_a_ring_that_is_none_yields_nothing(name: str) -> None:
    reader = RingReader()
    assert reader.read(FrameInfo(stamp_ns=0, seq=1, camera="top", height=4, width=5, ring=name, slot=0)) is None
    assert reader.overwritten == 1


@pytest.mark.parametrize("content", [b"", b"x", bytes(4096), os.urandom(8192)])
def test_a_file_that_is_no_ring_yields_nothing(run_dir: Path, content: bytes) -> None:
    path = SHARED_MEMORY / f"{ring_prefix(run_dir)}fake-1-1"
    path.write_bytes(content)
    info = FrameInfo(stamp_ns=0, seq=1, camera="top", height=4, width=5, ring=path.name, slot=0)
    assert RingReader().read(info) is None


@pytest.mark.parametrize("slot", [-1, 2, 10**6])
def test_a_slot_out_of_the_ring_yields_nothing(bus: Bus, run_dir: Path, slot: int) -> None:
    info = bus.own(RingWriter(run_dir, "top", (4, 5), slots=2)).write(picture(1), 0)
    info.slot = slot
    assert RingReader().read(info) is None


def test_never_a_torn_frame_while_a_writer_hammers(run_dir: Path, tmp_path: Path, spawn: Spawn) -> None:
    """Two readers verify every byte of frames that a third process overwrites as fast as it can, two slots in all."""
    spawn(publish_frames, run_dir, 480, 640, 2, 0.0)
    results = [tmp_path / "a.json", tmp_path / "b.json"]
    for result in results:
        spawn(verify_frames, run_dir, 150, 150, result)
    until(lambda: all(result.exists() and result.read_text() for result in results))
    for result in results:
        counts = json.loads(result.read_text())
        assert counts["torn"] == 0
        assert counts["good"] >= 150
        assert counts["overwritten"] >= 150, "readers were really overtaken"


def test_a_killed_writer_is_replaced_even_with_another_geometry(bus: Bus, run_dir: Path, spawn: Spawn) -> None:
    frames = FrameSubscriber(bus, TOP)
    rings: list[str] = []
    for size in (8, 16, 12):
        writer = spawn(publish_frames, run_dir, size, size, 4, 0.002)

        def picked_up(size: int = size) -> bool:
            info = frames.latest()
            image = None if info is None else frames.pixels(info)
            return image is not None and image.shape == (size, size, 3) and bool((image == info.seq % 251).all())

        until(picked_up)
        rings += [path.name for path in SHARED_MEMORY.glob(f"{ring_prefix(run_dir)}*")]
        writer.kill()
        writer.join()
    assert frames.restarts == 2
    assert len(rings) == len(set(rings)) == 3, "the next writer removes the ring of the one that was killed"


def test_a_second_writer_of_a_living_ring_is_refused(bus: Bus, run_dir: Path) -> None:
    writer = bus.own(RingWriter(run_dir, "top", (4, 5)))
    with pytest.raises(TransportError, match=f"camera top is written by pid {os.getpid()} already"):
        RingWriter(run_dir, "top", (4, 5))
    np.testing.assert_array_equal(RingReader().read(writer.write(picture(1), 0)), picture(1))
    bus.own(RingWriter(run_dir, "top2", (4, 5)))


def test_no_shared_memory_left(run_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(fd: int, offset: int, size: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    with (
        Bus(run_dir, WallClock()) as bus,
        pytest.raises(
            TransportError, match=r"camera top: its ring needs 7\.0 MiB, /dev/shm has [\d.]+ MiB free;.*remount"
        ),
    ):
        FramePublisher(bus, TOP, (480, 640, 3))
    assert not any(SHARED_MEMORY.glob(f"{ring_prefix(run_dir)}*"))
    assert [path.name for path in run_dir.iterdir()] == ["run.lock"]


def test_a_slow_reader_counts_what_it_lost(bus: Bus, other_bus: Bus) -> None:
    publisher = FramePublisher(bus, TOP, (4, 5, 3), slots=4)
    frames = FrameSubscriber(other_bus, TOP, depth=20)

    def arrived() -> bool:
        publisher.send(picture(0), 0)
        return frames.latest() is not None

    until(arrived)
    seen = frames.drain()[-1].seq
    for seed in range(10):
        last = publisher.send(picture(seed), seed)
    until(lambda: frames.latest().seq == last.seq)
    infos = frames.drain()
    images = [frames.pixels(info) for info in infos]
    assert sum(image is not None for image in images) == 4
    assert frames.overwritten == len(infos) - 4
    assert frames.dropped + len(infos) == last.seq - seen
    np.testing.assert_array_equal(images[-1], picture(9))


@pytest.mark.parametrize("inline", ["raw", "jpeg"])
def test_inline_pixels(bus: Bus, other_bus: Bus, inline: str) -> None:
    y, x = np.mgrid[0:48, 0:64]
    image = np.stack([y * 5, x * 4, x + y], axis=-1).astype(np.uint8)
    publisher = FramePublisher(bus, TOP, image.shape, inline=inline)  # type: ignore[arg-type]
    frames = FrameSubscriber(other_bus, TOP)

    def arrived() -> bool:
        publisher.send(image, 5)
        return frames.latest() is not None

    until(arrived)
    info = frames.latest()
    out = np.empty_like(image)
    assert (info.encoding, info.ring, info.stamp_ns) == (inline, "", 5)
    assert frames.pixels(info, out) is out
    difference = np.abs(out.astype(int) - image)
    assert difference.max() == 0 if inline == "raw" else difference.mean() < 3
    info.height += 1
    assert frames.pixels(info) is None
    info.pixels = b"rubbish"
    assert frames.pixels(info) is None


def test_a_ring_is_for_its_user_alone(run_dir: Path) -> None:
    """/dev/shm is everybody's: the file itself keeps others from the pictures."""
    before = os.umask(0)
    try:
        with Bus(run_dir, WallClock()) as bus:
            writer = bus.own(RingWriter(run_dir, "top", (4, 5)))
            assert (SHARED_MEMORY / writer.name).stat().st_mode & 0o777 == 0o600
    finally:
        os.umask(before)
