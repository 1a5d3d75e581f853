"""A writer that dies: finished episodes survive, the open one as far as it came, and the next writer cleans up."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from aloha_runtime.data import Dataset, DatasetWriter, files, open_episode, reports
from aloha_runtime.data.video_encoder import QUEUE_FRAMES
from aloha_runtime.data.writer import RECOVERED
from aloha_runtime.errors import DatasetError

IMAGE = np.full((32, 48, 3), 128, np.uint8)


class Killed(BaseException):
    """Stands for the end of the process: nothing may catch it."""


def add_frames(writer, episode, length=3):
    writer.begin_episode(f"task {episode}")
    for index in range(length):
        value = np.array([episode, index, 10 * episode + index], np.float64)
        frame = {"observation.state": value, "action": value[:1], "observation.images.cam_high": IMAGE}
        writer.add_frame(frame)


def add_episode(writer, episode, length=3):
    add_frames(writer, episode, length)
    writer.save_episode(f"task {episode}")


def check(dataset_path, lengths):
    dataset = Dataset(dataset_path)
    assert [episode.length for episode in dataset.episodes] == lengths
    expected = [[e, i, 10 * e + i] for e, length in enumerate(lengths) for i in range(length)]
    assert np.array_equal(dataset.vectors("observation.state"), np.array(expected, np.float32).reshape(-1, 3))
    for episode in dataset.episodes:
        assert episode.tasks == (f"task {episode.index}",)
        assert np.abs(dataset.images("cam_high", episode.index).astype(int) - 128).max() <= 2


@pytest.mark.parametrize("first", [0, 1])
@pytest.mark.parametrize("step", range(6))
def test_death_before_every_step_of_a_commit(writer, dataset_path, monkeypatch, first, step):
    """`first` episodes are there; the writer dies before file number `step` of the next appears."""
    for episode in range(first):
        add_episode(writer, episode)
    published = []
    publish = files.publish

    def dying_publish(aside, final):
        if len(published) == step:
            raise Killed
        publish(aside, final)
        published.append(final.relative_to(dataset_path).as_posix())

    monkeypatch.setattr(files, "publish", dying_publish)
    with pytest.raises(Killed):
        add_episode(writer, first)
    monkeypatch.undo()
    number = f"chunk-000/file-{first:03d}"
    order = [
        f"videos/observation.images.cam_high/{number}.mp4",
        f"data/{number}.parquet",
        "meta/tasks.parquet",
        f"meta/episodes/{number}.parquet",
        "meta/stats.json",
        "meta/info.json",
    ]
    assert published == order[:step]

    check(dataset_path, [3] * first)
    writer.close()
    with DatasetWriter.open(dataset_path) as next_writer:
        again = step == len(order)  # the commit point was reached, only the tidying was not
        assert next_writer.recovered == (None if again else 3)
        assert reports.read(dataset_path, first) == ({} if again else RECOVERED)
        check(dataset_path, [3] * (first + 1))
        for episode in range(first + 1, 3):
            add_episode(next_writer, episode)
    check(dataset_path, [3] * 3)
    assert Dataset(dataset_path).stats["index"]["count"] == [9]


@pytest.mark.parametrize("first", [0, 1])
@pytest.mark.parametrize("step", range(1, 6))
def test_an_interrupted_commit_that_cannot_be_brought_back_leaves_nothing(
    writer, dataset_path, monkeypatch, first, step
):
    """Files that nobody counts go, and what was written into common ones is as before."""

    def content():
        files_there = (path for path in dataset_path.rglob("*") if path.is_file() and ".writing" not in path.parts)
        return {path: path.read_bytes() for path in files_there}

    for episode in range(first):
        add_episode(writer, episode)
    before, publish, count = content(), files.publish, iter(range(100))

    def dying_publish(aside, final):
        if next(count) == step:
            raise Killed
        publish(aside, final)

    monkeypatch.setattr(files, "publish", dying_publish)
    with pytest.raises(Killed):
        add_episode(writer, first)
    monkeypatch.undo()
    assert content() != before
    writer.close()
    (dataset_path / ".writing/open.json").unlink()
    with DatasetWriter.open(dataset_path) as heir:
        assert heir.recovered is None
    assert content() == before


@pytest.mark.parametrize("step", range(5))
def test_death_of_the_recovery_loses_nothing(writer, dataset_path, monkeypatch, step):
    """The writer dies with an open episode, and the next one dies while it commits that."""
    add_episode(writer, 0)
    writer.close()
    die_recording(dataset_path, 1, length=25)
    publish, count = files.publish, iter(range(100))

    def dying_publish(aside, final):
        if next(count) == step:
            raise Killed
        publish(aside, final)

    monkeypatch.setattr(files, "publish", dying_publish)
    with pytest.raises(Killed):
        DatasetWriter.open(dataset_path)
    monkeypatch.undo()
    check(dataset_path, [3])
    DatasetWriter.open(dataset_path).close()
    check(dataset_path, [3, 20])


def die_recording(dataset_path, episode, length):
    """A child is killed when `length` frames of an open episode have reached its encoder."""
    child = os.fork()
    if child == 0:
        writer = DatasetWriter.open(dataset_path)
        add_frames(writer, episode, length)
        (encoder,) = writer._episode._encoders.values()
        rows = dataset_path / ".writing/rows.bin"
        while encoder._buffers.qsize() < QUEUE_FRAMES or not rows.exists() or rows.stat().st_size < length * 16:
            time.sleep(0.001)
        os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(child, 0)


def test_recovering_twice_gives_the_same_bytes(writer, dataset_path):
    writer.close()
    die_recording(dataset_path, 0, length=25)
    with DatasetWriter.open(dataset_path) as first:
        assert first.recovered == 20
    bytes_once = {path: path.read_bytes() for path in dataset_path.rglob("*") if path.is_file()}
    with DatasetWriter.open(dataset_path) as second:
        assert second.recovered is None
    assert bytes_once == {path: path.read_bytes() for path in dataset_path.rglob("*") if path.is_file()}


@pytest.mark.parametrize("share", [0.02, 0.3, 0.6])
def test_packets_that_are_listed_but_not_there_are_left_out(writer, dataset_path, share):
    """A full disk ends a file in the middle of a fragment; here its last bytes are zeros."""
    writer.close()
    die_recording(dataset_path, 0, length=45)
    film = dataset_path / ".writing/observation.images.cam_high.mp4"
    content = film.read_bytes()
    lost = int(share * len(content))
    film.write_bytes(content[:-lost] + bytes(lost))
    with DatasetWriter.open(dataset_path) as heir:
        frames = heir.recovered or 0
    assert frames % 10 == 0
    assert frames < 40
    check(dataset_path, [frames] if frames else [])
    DatasetWriter.open(dataset_path).close()


def test_recovery_begins_with_giving_up_the_reserve(writer, dataset_path, monkeypatch):
    """A disk that something else has filled has room for nothing else."""
    writer.close()
    die_recording(dataset_path, 0, length=25)
    reserve, cut = dataset_path / ".writing/reserve", open_episode.cut
    reserve.write_bytes(bytes(1000))

    def on_a_full_disk(*arguments):
        if reserve.exists():
            raise OSError(28, os.strerror(28))
        return cut(*arguments)

    monkeypatch.setattr(open_episode, "cut", on_a_full_disk)
    with DatasetWriter.open(dataset_path) as heir:
        assert heir.recovered == 20


def test_recovery_on_a_full_disk_loses_nothing(writer, dataset_path, monkeypatch):
    writer.close()
    die_recording(dataset_path, 0, length=25)

    def full(*arguments):
        raise OSError(28, os.strerror(28))

    with monkeypatch.context() as patched:
        patched.setattr(open_episode, "cut", full)
        with pytest.raises(DatasetError, match=r"No space left.*comes back then"):
            DatasetWriter.open(dataset_path)
    with DatasetWriter.open(dataset_path) as heir:
        assert heir.recovered == 20


def test_part_of_an_episode_is_saved(writer, dataset_path):
    add_frames(writer, 0, length=40)
    writer.save_episode("task 0", first=10, frames=17, report={"note": "the rest was the sign to end"})
    dataset = Dataset(dataset_path)
    assert np.array_equal(dataset.vectors("observation.state")[:, 1], np.arange(10, 27, dtype=np.float32))
    assert dataset.images("cam_high", 0).shape == (17, 32, 48, 3)
    assert reports.read(dataset_path, 0)["note"].startswith("the rest")


def test_the_last_episode_is_taken_back(writer, dataset_path):
    add_episode(writer, 0)
    before = {path: path.read_bytes() for path in dataset_path.rglob("*") if path.is_file()}
    add_episode(writer, 1)
    writer.drop_last_episode()
    assert before == {path: path.read_bytes() for path in dataset_path.rglob("*") if path.is_file()}
    add_episode(writer, 1, length=5)
    check(dataset_path, [3, 5])
    for _ in range(2):
        writer.drop_last_episode()
    with pytest.raises(DatasetError, match="no episode to take back"):
        writer.drop_last_episode()
    add_episode(writer, 0)
    check(dataset_path, [3])


def test_an_image_that_did_not_come_repeats_the_one_before(writer, dataset_path):
    for index in range(4):
        image = np.full((32, 48, 3), 50 * index, np.uint8) if index != 2 else None
        vectors = {"observation.state": np.zeros(3), "action": np.zeros(1)}
        writer.add_frame(vectors | {"observation.images.cam_high": image})
    writer.save_episode("task 0")
    seen = Dataset(dataset_path).images("cam_high", 0).mean(axis=(1, 2, 3))
    assert np.abs(seen - [0, 50, 50, 150]).max() < 3


CHILD = """
import sys
sys.path[:0] = [sys.argv[2], sys.argv[3]]
from pathlib import Path
from test_dataset_crash import DatasetWriter, add_episode
writer = DatasetWriter.open(sys.argv[1])
while True:
    add_episode(writer, writer.info.total_episodes)
    print(writer.info.total_episodes, flush=True)
"""


def test_sigkill_at_random_instants(writer, dataset_path):
    """Killed again and again while it writes as fast as it can; each successor opens what is left and goes on.

    Each child is killed within 50 ms of saying that it finished its first or second episode.
    """
    writer.close()
    here = Path(__file__).parent
    rng, committed = random.Random(5), 0
    for _ in range(4):
        command = [sys.executable, "-c", CHILD, str(dataset_path), str(here), str(here.parents[1])]
        child = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        for _ in range(rng.randint(1, 2)):
            committed += 1
            assert child.stdout.readline() == f"{committed}\n"
        time.sleep(rng.uniform(0.0, 0.05))
        child.send_signal(signal.SIGKILL)
        child.wait()
        child.stdout.close()
        assert Dataset(dataset_path).info.total_episodes >= committed, "a finished episode was lost"
        with DatasetWriter.open(dataset_path) as heir:
            committed = heir.info.total_episodes
        check(dataset_path, [3] * committed)
    assert not (dataset_path / ".writing").exists()


def test_one_writer_at_a_time(writer, dataset_path):
    with pytest.raises(DatasetError, match="being written by another process"):
        DatasetWriter.open(dataset_path)
    writer.close()
    DatasetWriter.open(dataset_path).close()


def test_full_disk_stops_the_writer_and_keeps_what_is_finished(writer, dataset_path, monkeypatch):
    add_episode(writer, 0)
    no_space = OSError(28, os.strerror(28))

    def full(aside, final):
        raise no_space

    monkeypatch.setattr(files, "publish", full)
    with pytest.raises(DatasetError, match="No space left on device"):
        add_episode(writer, 1)
    monkeypatch.undo()
    with pytest.raises(DatasetError, match="Nothing more is written"):
        add_episode(writer, 1)
    writer.close()
    check(dataset_path, [3])
    with DatasetWriter.open(dataset_path) as again:
        check(dataset_path, [3, 3])
        add_episode(again, 2)
    check(dataset_path, [3, 3, 3])


def test_failing_encoder_is_reported_and_does_not_hang(writer, dataset_path, monkeypatch):
    def broken(image, code):
        raise OSError(28, os.strerror(28))

    monkeypatch.setattr("aloha_runtime.data.video_encoder.cv2.cvtColor", broken)
    with pytest.raises(DatasetError, match=r"observation.images.cam_high.*No space left on device"):
        add_episode(writer, 0, length=100)
    writer.close()
    check(dataset_path, [])
