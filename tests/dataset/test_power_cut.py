"""A power cut at any moment of a recording: what was committed is there, the open episode as far as promised."""

import time

import numpy as np
import pytest
from power_cut import watch

from aloha_runtime.data import Dataset, DatasetWriter, edit, files, open_episode, reports

IMAGE = np.full((32, 48, 3), 128, np.uint8)
VECTORS = {"observation.state": ["x", "y", "z"], "action": ["a"]}


def frame(index: int) -> dict[str, np.ndarray]:
    value = np.array([index, 0, 1], np.float32)
    return {"observation.state": value, "action": value[:1], "observation.images.cam_high": IMAGE}


def add_episode(writer: DatasetWriter, length: int = 12) -> None:
    for index in range(length):
        writer.add_frame(frame(index))
    writer.save_episode("task", report={"outcome": ""})


def create(path) -> DatasetWriter:
    return DatasetWriter.create(path, vectors=VECTORS, cameras={"cam_high": (32, 48)})


def test_a_committed_episode_survives_and_nothing_counts_that_does_not(tmp_path, monkeypatch):
    cut = watch(tmp_path, monkeypatch)
    with create(tmp_path / "new" / "cups") as writer:
        assert cut.lost() == []
        for _ in range(2):
            add_episode(writer)
            assert cut.lost() == []
            assert cut.hurried == []
            assert cut.before["info.json"] == [], "everything that info.json counts must be there before it"
        after = Dataset(cut.rebuild(tmp_path.with_name(tmp_path.name + "-after")) / "new/cups")
        assert [episode.length for episode in after.episodes] == [12, 12]
        assert after.images("cam_high", 1).shape == (12, 32, 48, 3)


def test_an_episode_that_was_taken_back_or_marked_stays_so(tmp_path, monkeypatch):
    with create(tmp_path / "cups") as writer:
        add_episode(writer)
        add_episode(writer)
        cut = watch(tmp_path, monkeypatch)
        writer.drop_last_episode()
        assert cut.survivors()["cups/meta/info.json"] == (tmp_path / "cups/meta/info.json").read_bytes()
        files.publish_bytes(b"{}", tmp_path / "cups/.writing/report.json", reports.path(tmp_path / "cups", 0))
        assert cut.survivors()[str(reports.path(tmp_path / "cups", 0).relative_to(tmp_path))] == b"{}"
        assert cut.hurried == []


def test_of_the_open_episode_all_but_its_last_ten_seconds_come_back(tmp_path, monkeypatch):
    monkeypatch.setattr(open_episode, "SYNC_EVERY", 40)
    cut = watch(tmp_path, monkeypatch)
    writer = create(tmp_path / "cups")
    writer.begin_episode("stack")
    index = 0
    rows = "cups/.writing/rows.bin"
    while len(cut.survivors().get(rows, b"")) < 80 * 16 and index < 3000:  # the threads keep their pace
        writer.add_frame(frame(index))
        index += 1
        time.sleep(0.002)
    heir = DatasetWriter.open(cut.rebuild(tmp_path.with_name(tmp_path.name + "-after")) / "cups")
    assert heir.recovered is not None, "nothing of the open episode was on the disk"
    assert heir.recovered >= 40
    assert Dataset(heir.path).episodes[0].tasks == ("stack",)
    heir.close()
    writer.close()
    assert open_episode.SYNC_EVERY == 40


def test_the_disk_is_asked_every_ten_seconds():
    assert open_episode.SYNC_EVERY == 500


def test_an_edit_is_the_old_or_the_new_dataset(tmp_path, monkeypatch):
    with create(tmp_path / "cups") as writer:
        for _ in range(3):
            add_episode(writer)
    cut = watch(tmp_path, monkeypatch)
    edit.delete(tmp_path / "cups", ["1"])
    assert cut.lost() == []
    after = cut.rebuild(tmp_path.with_name(tmp_path.name + "-after")) / "cups"
    assert [episode.length for episode in Dataset(after).episodes] == [12, 12]
    assert np.array_equal(Dataset(after).images("cam_high", 1), Dataset(tmp_path / "cups").images("cam_high", 1))


@pytest.mark.parametrize("step", range(3))
def test_the_model_of_the_disk_forgets_what_was_not_synced(tmp_path, monkeypatch, step):
    """The judge itself: a file without sync is empty, a name without sync is not there."""
    cut = watch(tmp_path, monkeypatch)
    aside = tmp_path / "aside"
    aside.write_bytes(b"new")
    if step > 0:
        files.durable.sync(aside)
    aside.replace(tmp_path / "final")
    assert cut.hurried == ([] if step else ["final"])
    if step > 1:
        files.durable.sync(tmp_path)
    assert cut.lost() == ([] if step > 1 else ["final"])
