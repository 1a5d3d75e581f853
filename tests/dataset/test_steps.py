"""Steps of undo: how many are kept, which go first, and that only files of a step go with it."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from test_edit import content, write

from aloha_runtime.data import Dataset, DatasetWriter, edit, exchange, reports, steps
from aloha_runtime.data.staging import SET_ASIDE
from aloha_runtime.errors import DatasetError


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("made") / "dataset", episodes=(0, 2))


@pytest.fixture
def dataset(made: Path, tmp_path: Path) -> Path:
    return shutil.copytree(made, tmp_path / "dataset")


def task(path: Path) -> str:
    return Dataset(path).tasks[0]


def relabel(path: Path, *names: str) -> None:
    for name in names:
        edit.relabel(path, ["0"], name, None)


def test_two_undos_go_two_steps_back_and_two_redos_forward(dataset: Path) -> None:
    before = content(dataset)
    relabel(dataset, "a", "b", "c")
    edit.undo(dataset)
    assert task(dataset) == "b"
    assert "2 older steps left" in edit.undo(dataset) or task(dataset) == "a"
    assert task(dataset) == "a"
    edit.undo(dataset)
    assert content(dataset) == before
    with pytest.raises(DatasetError, match="no edit to undo"):
        edit.undo(dataset)
    for name in ("a", "b", "c"):
        edit.redo(dataset)
        assert task(dataset) == name
    with pytest.raises(DatasetError, match="no undo to take back"):
        edit.redo(dataset)


def test_what_was_undone_is_not_lost_by_another_edit(dataset: Path) -> None:
    relabel(dataset, "a")
    with DatasetWriter.open(dataset) as writer:  # what is recorded after an edit goes along with the undo
        still, image = np.zeros(2, np.float32), np.zeros((16, 16, 3), np.uint8)
        writer.add_frame({"observation.state": still, "action": still, "observation.images.cam": image})
        writer.save_episode("new")
    edit.undo(dataset)
    assert len(Dataset(dataset).episodes) == 2
    relabel(dataset, "b")
    seen = []
    for _ in range(2):
        edit.undo(dataset)
        seen.append(len(Dataset(dataset).episodes))
    assert seen == [2, 3]


def test_twenty_steps_are_kept_and_the_oldest_goes(dataset: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(steps, "MOST", 3)
    assert steps.FREE_SHARE == 0.1
    relabel(dataset, "a", "b", "c")
    said = edit.relabel(dataset, ["0"], "d", None)
    assert "1 oldest step can be undone no more" in said
    listed = edit.steps_of(dataset).splitlines()
    assert [line.partition(":")[0] for line in listed] == ["undo 1", "undo 2", "undo 3"]
    assert all("2 episodes before: 1 episode relabelled" in line for line in listed)
    for name in ("c", "b", "a"):
        edit.undo(dataset)
        assert task(dataset) == name
    with pytest.raises(DatasetError, match="no edit to undo"):
        edit.undo(dataset)


def test_most_is_twenty() -> None:
    assert steps.MOST == 20


def test_on_a_full_disk_the_last_step_stays(dataset: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    relabel(dataset, "a", "b")
    usage = shutil.disk_usage(dataset)
    nearly = usage._replace(free=int(usage.total * 0.09))
    monkeypatch.setattr(shutil, "disk_usage", lambda _: nearly)
    relabel(dataset, "c")
    assert len(steps.kept(dataset)) == 1
    edit.undo(dataset)
    assert task(dataset) == "b"


def test_what_somebody_put_into_a_step_is_set_aside(dataset: Path) -> None:
    relabel(dataset, "a")
    (step,) = steps.kept(dataset)
    (step / "notes.txt").write_text("mine")
    (step / "meta/info.json").write_text("changed")
    edit.forget(dataset)
    assert not exchange.beside(dataset, "undo").exists()
    left = content(dataset / SET_ASIDE)
    assert sorted(left.values()) == [b"changed", b"mine"]


def test_a_step_without_a_list_is_not_deleted(dataset: Path) -> None:
    relabel(dataset, "a")
    (step,) = steps.kept(dataset)
    before = content(step)
    step.with_name(f"{step.name}.json").unlink()
    edit.forget(dataset)
    assert sorted(content(dataset / SET_ASIDE).values()) == sorted(before.values())


def test_a_step_shares_its_files_and_leaves_them_to_the_dataset(dataset: Path) -> None:
    relabel(dataset, "a")
    before = content(dataset)
    edit.forget(dataset)
    assert content(dataset) == before
    assert reports.read(dataset, 0)["was"] == 0


def test_what_an_older_version_kept_is_a_step(dataset: Path) -> None:
    relabel(dataset, "a")
    (step,) = steps.kept(dataset)
    old, folder = dataset.with_name("old"), exchange.beside(dataset, "undo")
    step.rename(old)
    shutil.rmtree(folder)
    old.rename(folder)
    edit.undo(dataset)
    assert task(dataset) == "wipe"


def test_a_folder_in_the_way_of_an_edit_stays(dataset: Path) -> None:
    new = exchange.beside(dataset, "new")
    new.mkdir()
    (new / "notes.txt").write_text("mine")
    with pytest.raises(DatasetError, match="nothing says that this program made it"):
        relabel(dataset, "a")
    edit.forget(dataset)
    assert (new / "notes.txt").read_text() == "mine"
    new.with_name(f"{new.name}.ours").write_text('{"device": 1, "inode": 1}')
    with pytest.raises(DatasetError, match="nothing says that this program made it"):
        relabel(dataset, "a")
    assert (new / "notes.txt").read_text() == "mine"


def test_a_link_beside_the_tables_goes_along_as_a_link(dataset: Path, tmp_path: Path) -> None:
    private = tmp_path / "private"
    private.mkdir()
    (private / "letter.txt").write_text("mine")
    (dataset / "notes").symlink_to(private)
    (dataset / "more").mkdir()
    (dataset / "more/notes").symlink_to(private)
    (dataset / "meta/words.txt").write_text("ours")
    relabel(dataset, "a")
    edit.compact(dataset)
    assert (dataset / "notes").readlink() == private
    assert (dataset / "more/notes").readlink() == private
    assert (private / "letter.txt").stat().st_nlink == 1, "no hard link of it was made"
    assert (dataset / "meta/words.txt").read_text() == "ours", "unknown files among the tables go along"
