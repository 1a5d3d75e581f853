"""Logs and the ring's copy on the disk: whole or absent, within their bound, back after a kill."""

import os
import re
from datetime import datetime
from pathlib import Path
from typing import IO

import made_logs
import pytest
from hypothesis import given
from hypothesis import strategies as st
from power_cut import watch

from aloha_runtime.flight_log import shelf, spool
from aloha_runtime.flight_log.reader import FlightLog
from aloha_runtime.flight_log.ring import Ring, Sealed
from aloha_runtime.flight_log.triggers import Event
from aloha_runtime.flight_log.writer import LogWriter

S = made_logs.S


def chunks(count: int) -> list[Sealed]:
    ring = Ring(1000 * S, 1 << 30)
    for second in range(count):
        for index in range(20):
            made_logs.say(ring, second * S + index, "info", "mode", f"line {second} {index}")
        ring.seal()
    return ring.since(0)


def write(text: str) -> object:
    return lambda file: file.write(text.encode())


def test_a_log_that_fails_half_way_leaves_nothing_that_counts(tmp_path: Path) -> None:
    def half(file: IO[bytes]) -> None:
        file.write(b"half")
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space"):
        shelf.publish(tmp_path, "a.mcap", half)
    assert [path.name for path in tmp_path.iterdir()] == [shelf.INDEX]


def test_a_log_survives_a_power_cut(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cut = watch(tmp_path, monkeypatch)
    shelf.publish(tmp_path, "a.mcap", lambda file: file.write(b"whole"))
    assert cut.hurried == []
    assert {name: content for name, content in cut.survivors().items() if name != shelf.INDEX} == {"a.mcap": b"whole"}


def test_a_power_cut_costs_the_ring_ten_seconds_at_most(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    logs = tmp_path / "logs"
    logs.mkdir()
    cut = watch(logs, monkeypatch)
    kept = spool.Spool(logs, tmp_path, made_logs.CHANNELS, 13 * S)
    for number, chunk in enumerate(chunks(60), 1):
        kept.append(chunk)
        after = cut.rebuild(tmp_path / "after")
        there = {found.start_ns for path in after.glob(".ring-*.mcap") for found in spool.read(path)[1]}
        written = sorted(found.start_ns for path in kept._paths if path.exists() for found in spool.read(path)[1])
        missing = [start_ns for start_ns in written if start_ns not in there]
        assert len(missing) <= 9, number
        assert missing == written[len(written) - len(missing) :], "what is missing is the newest, never a hole"
    kept.close()


def test_two_logs_of_one_second_keep_apart(tmp_path: Path) -> None:
    event = Event("fault", "arms@followers: left elbow: Overload (0x20)!", 0, "policy")
    name = shelf.name_for(event, datetime(2026, 11, 26, 21, 55, 3))
    assert name == "2026-11-26_21-55-03_fault_arms-followers-left-elbow-overload-0x20.mcap"
    paths = [shelf.publish(tmp_path, name, lambda file: None) for _ in range(3)]
    assert len(set(paths)) == 3
    assert shelf.logs(tmp_path) == sorted(paths)
    assert {shelf.kind_of(path) for path in paths} == {"fault"}


def test_ordinary_stops_go_first_faults_last_and_the_newest_log_stays(tmp_path: Path) -> None:
    kinds = ("fault", "stop", "died", "hold", "fault", "stalled", "saved", "ended", "recovered", "stop")
    for index, kind in enumerate(kinds):
        shelf.publish(tmp_path, f"2026-01-{index + 1:02}_10-00-00_{kind}_x.mcap", lambda file: file.write(bytes(100)))
    foreign = tmp_path / "of-somebody-else.mcap"
    foreign.write_bytes(bytes(5000))
    there = {(shelf.kind_of(path), path.name[8:10]): path for path in shelf.logs(tmp_path)}
    newest = there["stop", "10"]
    assert shelf.make_room(tmp_path, 1000, newest) == []
    assert shelf.make_room(tmp_path, 950, newest) == [there["stop", "02"].name]
    gone = shelf.make_room(tmp_path, 250, newest)
    assert [shelf.kind_of(tmp_path / name) for name in gone] == [
        "ended",
        "saved",
        "recovered",
        "hold",
        "stalled",
        "died",
        "fault",
    ]
    assert gone[-1] == there["fault", "01"].name, "of one kind, the oldest first"
    assert shelf.make_room(tmp_path, 150, newest) == [there["fault", "05"].name]
    assert shelf.make_room(tmp_path, 10, newest) == []
    assert shelf.logs(tmp_path) == [newest, foreign]


def test_what_a_log_holds_leaves_the_spool(tmp_path: Path) -> None:
    folder = tmp_path / "logs"
    writer = LogWriter(folder, tmp_path / "mine", made_logs.CHANNELS, 2 * S, 1000)
    writer.begin().result(timeout=10)
    made = chunks(8)
    for chunk in made[:6]:
        writer.keep(chunk)
    writer.write(Event("hold", "x", 6 * S, ""), made[:6], {}, []).result(timeout=10)
    for chunk in made[6:]:
        writer.keep(chunk)
    writer.close(forget=False)
    assert writer._spool is not None
    writer._spool._lock.close()  # as the kernel does for the dead
    ((_, left),) = spool.left_behind(folder)
    assert [chunk.start_ns for chunk in left] == [chunk.start_ns for chunk in made[6:]]


def test_a_ring_gives_what_is_in_no_log_yet() -> None:
    ring = Ring(3 * S, 1 << 30)
    kept = 0
    for second in range(8):
        made_logs.say(ring, second * S, "info", "mode", "line")
        ring.seal()
        if second == 5:
            kept = ring.finished
    stamps = [chunk.start_ns - made_logs.WALL for chunk in ring.since(0)]
    assert stamps == [4 * S, 5 * S, 6 * S, 7 * S], "three seconds of them"
    assert [chunk.start_ns - made_logs.WALL for chunk in ring.since(0, after=kept)] == [6 * S, 7 * S]


def test_halves_of_the_dead_go_and_those_of_the_living_stay(tmp_path: Path) -> None:
    name = "2026-11-26_21-55-03_hold_x.mcap"
    mine, dead = tmp_path / f".{name}.{os.getpid()}.part", tmp_path / f".{name}.999999999.part"
    foreign = tmp_path / f".{name}.999999998.part"
    for path in (mine, dead, foreign):
        path.write_bytes(b"half")
    for path in (mine, dead):
        status = path.stat()
        shelf._list(tmp_path, shelf.Entry(path.name, device=status.st_dev, inode=status.st_ino))
    shelf.remove_halves(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([mine.name, foreign.name, shelf.INDEX])


def test_a_log_that_somebody_put_there_under_such_a_name_stays(tmp_path: Path) -> None:
    """By its name it is ours; by the index it is not, or it is another file by now."""
    names = [f"2026-11-2{day}_10-00-00_hold_x.mcap" for day in (1, 2, 3, 4)]
    for name in names[1:]:
        shelf.publish(tmp_path, name, lambda file: file.write(bytes(100)))
    (tmp_path / names[0]).write_bytes(b"a copy from another robot")
    (tmp_path / names[1]).unlink()
    (tmp_path / names[1]).write_bytes(b"an annotated log")
    assert shelf.make_room(tmp_path, 0, tmp_path / names[3]) == [names[2]]
    assert {path.name for path in shelf.logs(tmp_path)} == {names[0], names[1], names[3]}


def test_a_damaged_index_proves_nothing(tmp_path: Path) -> None:
    names = [f"2026-11-2{day}_10-00-00_hold_x.mcap" for day in (1, 2)]
    for name in names:
        shelf.publish(tmp_path, name, lambda file: file.write(bytes(100)))
    (tmp_path / shelf.INDEX).write_bytes(b'{"name": 5}\n\xff\n[]')
    assert shelf.make_room(tmp_path, 0, tmp_path / names[1]) == []


def test_a_file_under_the_name_of_the_ring_is_neither_read_nor_replaced(tmp_path: Path) -> None:
    kept = spool.Spool(tmp_path, tmp_path, made_logs.CHANNELS, 3 * S)
    second, lock = kept._paths[1], kept._lock_path
    kept.close()
    second.write_bytes(b"mine")
    kept = spool.Spool(tmp_path, tmp_path, made_logs.CHANNELS, 3 * S)
    made = chunks(10)
    for chunk in made[:3]:
        kept.append(chunk)
    with pytest.raises(FileExistsError):
        kept.append(made[3])
    kept.close()
    assert second.read_bytes() == b"mine"
    lock.write_bytes(b"")
    assert list(spool.left_behind(tmp_path)) == []
    assert second.read_bytes() == b"mine"
    assert lock.exists(), "nothing says that a recorder made it"


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    folder = tmp_path_factory.mktemp("spool")
    kept = spool.Spool(folder, folder, made_logs.CHANNELS, 1000 * S)
    for chunk in chunks(5):
        kept.append(chunk)
    (path, _) = sorted(folder.glob(".ring-*.*.mcap"))[0], kept
    return path.read_bytes()


@given(data=st.data())
def test_a_spool_cut_at_any_byte_gives_every_whole_second(
    whole: bytes, tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    length = data.draw(st.integers(0, len(whole)))
    path = tmp_path_factory.mktemp("cut") / "ring.mcap"
    path.write_bytes(whole[:length])
    found = spool.read(path)[1]
    ends, at = [], whole.index(chunks(1)[0].record[:9])
    for chunk in chunks(5):
        ends.append(at + len(chunk.record))
        at += chunk.size
    assert [chunk.counts for chunk in found] == [chunk.counts for chunk in chunks(5)][
        : sum(end <= length for end in ends)
    ]
    assert [chunk.indexes for chunk in found] == [chunk.indexes for chunk in chunks(5)][: len(found)]


def test_a_spool_with_a_flipped_byte_loses_no_more_than_what_follows(whole: bytes, tmp_path: Path) -> None:
    broken = bytearray(whole)
    broken[-40] ^= 0xFF
    (tmp_path / "ring.mcap").write_bytes(broken)
    assert len(spool.read(tmp_path / "ring.mcap")[1]) >= 4


def test_a_spool_is_bounded_and_gone_after_a_clean_end(tmp_path: Path) -> None:
    kept = spool.Spool(tmp_path, tmp_path, made_logs.CHANNELS, 3 * S)
    for chunk in chunks(40):
        kept.append(chunk)
    paths = sorted(tmp_path.glob(".ring-*.*.mcap"))
    seconds = sorted(chunk.start_ns for path in paths for chunk in spool.read(path)[1])
    assert 3 <= len(seconds) <= 9, "between one and two times the ring"
    assert seconds[-1] == made_logs.WALL + 39 * S
    kept.close()
    assert list(tmp_path.iterdir()) == []


def test_what_a_dead_recorder_left_becomes_a_log_and_a_living_one_is_left_alone(tmp_path: Path) -> None:
    folder, alive = tmp_path / "logs", tmp_path / "alive"
    folder.mkdir()
    living = spool.Spool(folder, alive, made_logs.CHANNELS, 300 * S)
    living.append(chunks(1)[0])
    dead = spool.Spool(folder, tmp_path / "dead", made_logs.CHANNELS, 300 * S)
    for chunk in chunks(4):
        dead.append(chunk)
    dead._lock.close()  # as the kernel does for the dead
    writer = LogWriter(folder, tmp_path / "mine", made_logs.CHANNELS, 300 * S, 1000)
    (written,) = writer.begin().result()
    with FlightLog(written.path) as log:
        assert (log.about.kind, log.about.event_ns) == ("recovered", made_logs.WALL + 3 * S + 19)
        assert log.counts() == {"/log": 80}
    writer.close(forget=True)
    assert re.match(r"\.ring-\w+\.(0\.mcap|lock)", living._paths[0].name)
    assert living._paths[0].exists()
    living.close()
    assert shelf.logs(folder) == [written.path]
    assert {path.name for path in folder.iterdir()} == {written.path.name, shelf.INDEX}


def test_a_folder_that_cannot_be_is_said_and_the_ring_goes_on(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    writer = LogWriter(tmp_path / "file", tmp_path, made_logs.CHANNELS, 300 * S, 1000)
    assert isinstance(writer.begin().exception(), OSError)
    writer.keep(chunks(1)[0])
    assert isinstance(writer.write(Event("stop", "x", 0, ""), chunks(1), {}, []).exception(), OSError)
    writer.close(forget=True)


def test_a_folder_that_can_be_written_later_gets_its_spool_with_the_first_log(tmp_path: Path) -> None:
    folder = tmp_path / "logs"
    folder.write_text("in the way")
    writer = LogWriter(folder, tmp_path / "mine", made_logs.CHANNELS, 300 * S, 1000)
    assert isinstance(writer.begin().exception(timeout=10), OSError)
    folder.unlink()
    writer.write(Event("saved", "asked for", S, ""), [], {}, []).result(timeout=10)
    assert list(folder.glob(".ring-*.mcap"))
    writer.close(forget=True)


@pytest.mark.parametrize(
    "name",
    [
        "alice_notes_stop_friday.mcap",
        "my_lab_fault_demo.mcap",
        "2026-11-26_21-55-03_holiday_x.mcap",
        "2026-11-26_21-55-03_hold_X.mcap",
        ".download.part",
        ".video.mp4.part",
        ".notes.mcap.999999999.part",
    ],
)
def test_a_file_that_only_resembles_ours_stays(tmp_path: Path, name: str) -> None:
    foreign, newest = tmp_path / name, tmp_path / "2026-11-27_21-55-03_hold_y.mcap"
    for path in (foreign, newest):
        path.write_bytes(bytes(100))
    shelf.remove_halves(tmp_path)
    assert shelf.make_room(tmp_path, 0, newest) == []
    assert foreign.exists()


def test_links_and_folders_in_the_place_of_logs_stay_and_stop_nothing(tmp_path: Path) -> None:
    old, elsewhere, newest = (f"2026-11-2{day}_10-00-00_hold_x.mcap" for day in (1, 2, 3))
    (tmp_path / old).mkdir()
    (tmp_path / elsewhere).symlink_to("/nowhere")
    (tmp_path / f".{old}.999999999.part").mkdir()
    (tmp_path / newest).write_bytes(bytes(100))
    shelf.remove_halves(tmp_path)
    assert shelf.make_room(tmp_path, 0, tmp_path / newest) == []
    assert (tmp_path / elsewhere).is_symlink()
