"""What no episode counts: deleted where our journal proves it ours, else offered back, left in place, or set aside."""

import hashlib
import os
import shutil
from pathlib import Path

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from test_dataset_crash import Killed, add_episode, add_frames
from typer.testing import CliRunner

from aloha_runtime.cli.datasets import app
from aloha_runtime.data import Dataset, DatasetWriter, edit, files, split_merge
from aloha_runtime.data.check import check
from aloha_runtime.data.repair import repair
from aloha_runtime.data.staging import SET_ASIDE, Journal
from aloha_runtime.errors import AlohaError, DatasetError

DATA = "data/chunk-000/file-{:03d}.parquet"
ROWS = "meta/episodes/chunk-000/file-{:03d}.parquet"
VIDEO = "videos/observation.images.cam_high/chunk-000/file-{:03d}.mp4"


def content(path: Path) -> dict[str, bytes]:
    return {str(file.relative_to(path)): file.read_bytes() for file in sorted(path.rglob("*")) if file.is_file()}


@pytest.fixture
def three(writer, dataset_path) -> Path:
    for episode in range(3):
        add_episode(writer, episode)
    writer.close()
    return dataset_path


def change_info(path: Path, **changes: object) -> None:
    info = msgspec.json.decode((path / "meta/info.json").read_bytes())
    (path / "meta/info.json").write_bytes(msgspec.json.encode(info | changes))


def change_row(path: Path, episode: int, column: str, value: int) -> None:
    table = pq.read_table(path / ROWS.format(episode))
    position = table.column_names.index(column)
    pq.write_table(table.set_column(position, column, pa.array([value])), path / ROWS.format(episode))


def test_an_episode_that_info_does_not_count_is_offered_back(three: Path) -> None:
    change_info(three, total_episodes=2, total_frames=6)
    before = content(three)
    said = repair(three)
    assert not said.is_sound
    assert "episode 2 is whole (3 frames, 'task 2')" in said.lines[0]
    assert f"aloha dataset repair {three} --take" in said.lines[0]
    assert content(three) == before, "it is offered, not taken, and nothing is moved"
    for writing in (DatasetWriter.open, lambda path: edit.delete(path, ["0"]), edit.restat, edit.compact):
        with pytest.raises(DatasetError, match=r"no episode counts .* and 2 more.*aloha dataset repair"):
            writing(three)
    assert content(three) == before
    assert repair(three, take=True).is_sound
    assert [episode.length for episode in Dataset(three).episodes] == [3, 3, 3]
    assert check(three) == []


def test_an_episode_that_is_not_wanted_is_set_aside_whole(three: Path) -> None:
    change_info(three, total_episodes=2, total_frames=6)
    before = content(three)
    assert not repair(three, leave=True).is_sound
    (day,) = (three / SET_ASIDE).iterdir()
    for name in (DATA, ROWS, VIDEO):
        assert (day / name.format(2)).read_bytes() == before[name.format(2)]
        assert not (three / name.format(2)).exists()
    assert repair(three).is_sound, "there is nothing to do any more"
    edit.delete(three, ["0"])
    assert {path.name for path in (three / SET_ASIDE).rglob("*.mp4")} == {"file-002.mp4"}, "an edit takes it along"


@pytest.mark.parametrize("missing", [VIDEO, DATA])
def test_an_episode_that_is_not_whole_is_set_aside(three: Path, missing: str) -> None:
    change_info(three, total_episodes=2, total_frames=6)
    (three / missing.format(2)).unlink()
    before = content(three)
    said = repair(three)
    assert not said.is_sound
    assert any("set aside" in line for line in said.lines)
    assert sorted(before.values()) == sorted(content(three).values()), "moved, each byte of it"
    assert check(three)[0].where == "meta/stats.json", "else it is sound"


@pytest.mark.parametrize("column", ["data/file_index", "videos/observation.images.cam_high/file_index"])
def test_frames_that_a_wrong_row_hides_stay(three: Path, column: str) -> None:
    change_row(three, 2, column, 1)
    before = content(three)
    for _ in range(2):
        said = repair(three)
        assert not said.is_sound
        assert "stays: it" in said.lines[0]
        assert "episode 2" in said.lines[0]
    assert content(three) == before
    with pytest.raises(DatasetError, match="aloha dataset repair"):
        DatasetWriter.open(three)
    if column.startswith("data"):
        assert any("episode 2, its row" in finding.where and DATA.format(1) in finding.what for finding in check(three))


def test_files_of_others_are_set_aside_by_repair_alone(three: Path) -> None:
    strange = three / DATA.format(9)
    shutil.copy(three / ROWS.format(0), strange)
    before = strange.read_bytes()
    with pytest.raises(DatasetError, match="this program did not leave it there"):
        DatasetWriter.open(three)
    assert strange.read_bytes() == before
    assert not repair(three).is_sound
    (moved,) = [path for path in (three / SET_ASIDE).rglob("*") if path.is_file()]
    assert moved.read_bytes() == before
    strange.write_bytes(b"another of that name")
    assert not repair(three).is_sound
    assert len([path for path in (three / SET_ASIDE).rglob("*") if path.is_file()]) == 2, "nothing there is replaced"


def test_files_of_others_in_the_staging_folder_are_set_aside(three: Path) -> None:
    (three / ".writing").mkdir()
    (three / ".writing/notes.txt").write_text("mine")
    (three / ".writing/rows.bin").write_bytes(b"of nobody knows")
    with DatasetWriter.open(three) as writer:
        assert {path.name for path in writer.set_aside} == {"notes.txt", "rows.bin"}
        assert {path.read_bytes() for path in writer.set_aside} == {b"mine", b"of nobody knows"}
    assert check(three) == []


def test_a_reserve_that_holds_something_is_no_reserve(three: Path) -> None:
    (three / ".writing").mkdir()
    (three / ".writing/reserve").write_bytes(bytes(5000) + b"x")
    with DatasetWriter.open(three) as writer:
        assert [path.name for path in writer.set_aside] == ["reserve"]
    (three / ".writing").mkdir()
    (three / ".writing/reserve").write_bytes(bytes(5000))
    with DatasetWriter.open(three) as writer:
        assert writer.set_aside == []


def interrupted(writer: DatasetWriter, monkeypatch: pytest.MonkeyPatch, step: int) -> None:
    """Dies before file number `step` of an episode takes its place."""
    publish, count = files.publish, iter(range(100))

    def dying(aside: Path, final: Path) -> None:
        if next(count) == step:
            raise Killed
        publish(aside, final)

    with monkeypatch.context() as patched:
        patched.setattr(files, "publish", dying)
        with pytest.raises(Killed):
            add_episode(writer, 3)
    writer.close()


@pytest.mark.parametrize("step", [1, 2, 4])
def test_a_file_that_changed_since_the_journal_is_not_ours_any_more(three: Path, monkeypatch, step: int) -> None:
    interrupted(DatasetWriter.open(three), monkeypatch, step)
    film = three / VIDEO.format(3)
    film.write_bytes(film.read_bytes() + b"more")
    before = film.read_bytes()
    with pytest.raises(DatasetError, match=r"file-003.mp4"):
        DatasetWriter.open(three)
    repair(three)
    assert before in content(three).values()


def test_a_journal_of_somebody_else_proves_nothing_of_counted_files(three: Path) -> None:
    """It lists the whole dataset with the right digests, as part of an episode that nobody counts."""
    listed = {name: hashlib.sha256(data).hexdigest() for name, data in content(three).items()}
    listed["../outside.txt"] = hashlib.sha256(b"mine").hexdigest()
    (three.parent / "outside.txt").write_bytes(b"mine")
    (three / ".writing").mkdir()
    (three / ".writing/journal.json").write_bytes(msgspec.json.encode(Journal(99, listed)))
    DatasetWriter.open(three).close()
    assert [episode.length for episode in Dataset(three).episodes] == [3, 3, 3]
    assert check(three) == []
    assert (three.parent / "outside.txt").read_bytes() == b"mine"


def test_an_episode_of_an_earlier_session_that_is_taken_back_is_set_aside(three: Path) -> None:
    before = content(three)
    with DatasetWriter.open(three) as writer:
        add_episode(writer, 3)
        assert writer.drop_last_episode() == [], "this one is ours"
        moved = writer.drop_last_episode()
    assert {path.read_bytes() for path in moved} == {before[name.format(2)] for name in (DATA, ROWS, VIDEO)}
    assert [episode.length for episode in Dataset(three).episodes] == [3, 3]
    assert check(three) == []


def test_an_episode_that_nobody_can_read_is_set_aside_not_deleted(three: Path) -> None:
    """Its info counts differently than when it was begun: it may be the only copy."""
    opened = DatasetWriter.open(three)
    add_frames(opened, 3)
    opened._episode.abandon()
    os.close(opened._lock)
    header = msgspec.json.decode((three / ".writing/open.json").read_bytes())
    (three / ".writing/open.json").write_bytes(msgspec.json.encode(header | {"episode_index": 7}))
    rows = (three / ".writing/rows.bin").read_bytes()
    assert len(np.frombuffer(rows, np.float32)) == 12
    said = repair(three)
    assert not said.is_sound
    assert rows in content(three / SET_ASIDE).values()


def test_merge_and_split_leave_their_sources_alone(three: Path, tmp_path: Path) -> None:
    change_info(three, total_episodes=2, total_frames=6)
    before = content(three)
    split_merge.split(three, tmp_path / "a", tmp_path / "b", ["0"])
    split_merge.merge([three, tmp_path / "a"], tmp_path / "both")
    assert content(three) == before


def test_the_command_tells_by_its_exit_code(three: Path) -> None:
    run = CliRunner().invoke
    assert run(app, ["repair", str(three)]).exit_code == 0
    change_info(three, total_episodes=2, total_frames=6)
    assert run(app, ["repair", str(three)]).exit_code == 1
    assert run(app, ["repair", str(three), "--take"]).exit_code == 0
    assert run(app, ["repair", str(three), "--take", "--leave"]).exit_code == 2


def test_the_staging_folder_is_no_link(three: Path, tmp_path: Path) -> None:
    private = tmp_path / "private"
    private.mkdir()
    (private / "reserve").write_bytes(bytes(10))
    (private / "rows.bin").write_bytes(b"mine")
    (three / ".writing").symlink_to(private)
    for opened in (DatasetWriter.open, repair):
        with pytest.raises(AlohaError, match=r"\.writing is a link"):
            opened(three)
    assert content(private) == {"reserve": bytes(10), "rows.bin": b"mine"}
