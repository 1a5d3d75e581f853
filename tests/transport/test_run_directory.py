"""The run directory: private, one owner, and nothing left behind by the living or the dead."""

import os
from collections.abc import Callable
from multiprocessing.process import BaseProcess
from pathlib import Path

import numpy as np
import pytest
from transport_workers import publish_frames, publish_heartbeats, until

from aloha_runtime import ring_memory, run_directory
from aloha_runtime.bus import Bus
from aloha_runtime.errors import TransportError
from aloha_runtime.realtime import WallClock
from aloha_runtime.ring_memory import RingReader, RingWriter
from aloha_runtime.run_directory import SHARED_MEMORY, RunDirectory, default_run_dir, lock_holder, ring_prefix

Spawn = Callable[..., BaseProcess]


def test_created_for_this_user_only_and_removed(tmp_path: Path) -> None:
    with RunDirectory(tmp_path / "run") as directory:
        assert directory.path.stat().st_mode & 0o777 == 0o700
    assert list(tmp_path.iterdir()) == []


def test_default_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", "/run/user/7")
    assert default_run_dir() == Path("/run/user/7/aloha")
    monkeypatch.delenv("XDG_RUNTIME_DIR")
    monkeypatch.setattr(run_directory, "TEMPORARY", tmp_path)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    assert default_run_dir() == tmp_path / f"aloha-{os.getuid()}"


def test_who_takes_the_default_place_first_stops_nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("XDG_RUNTIME_DIR", raising=False)
    monkeypatch.setattr(run_directory, "TEMPORARY", tmp_path)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    planted, own = tmp_path / f"aloha-{os.getuid()}", tmp_path / "state/aloha/run"
    planted.symlink_to(tmp_path)  # as another user can in /tmp
    assert default_run_dir() == own
    with RunDirectory() as directory:
        planted.unlink()
        assert default_run_dir() == directory.path == own, "the rig that runs is still found"
    assert default_run_dir() == planted


def _pipe(path: Path) -> None:
    os.mkfifo(path)


PLANTED: dict[str, Callable[[Path], None]] = {
    "link to a file": lambda path: path.symlink_to("/etc/hostname"),
    "link to nothing": lambda path: path.symlink_to("/nowhere"),
    "pipe": _pipe,
    "folder": lambda path: path.mkdir(),
}


@pytest.mark.parametrize("what", PLANTED)
def test_what_somebody_planted_in_shared_memory_stops_neither_the_rig_nor_a_camera(
    what: str, tmp_path: Path, planted: Callable[[str], Path]
) -> None:
    prefix = ring_prefix(tmp_path / "run")
    there = [planted(f"{prefix}{name}") for name in ("top-1-1", f"top-{os.getpid()}-0", "link", "link-1")]
    for path in there:
        PLANTED[what](path)
    with RunDirectory(tmp_path / "run") as directory:
        with Bus(directory.path, WallClock()) as bus:
            bus.own(RingWriter(directory.path, "top", (4, 5)))
        assert directory.stale == []
    assert all(os.path.lexists(path) for path in there), "they are not ours to remove"


def test_a_file_of_another_user_in_shared_memory_is_passed_over(
    run_dir: Path, planted: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    theirs = planted(f"{ring_prefix(run_dir)}top-1-1")
    theirs.write_bytes(b"1 somebody")
    held = run_directory.Lock(theirs, "")
    try:
        _owned_by_somebody_else(monkeypatch, theirs)
        with Bus(run_dir, WallClock()) as bus:
            ours = bus.own(RingWriter(run_dir, "top", (4, 5)))
            assert ours.name != theirs.name
            assert theirs.exists()
    finally:
        monkeypatch.undo()
        held.release()


def test_a_ring_of_another_user_is_not_read(run_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with Bus(run_dir, WallClock()) as bus:
        writer = bus.own(RingWriter(run_dir, "top", (4, 5)))
        info = writer.write(np.zeros((4, 5, 3), np.uint8), 0)
        assert RingReader().read(info) is not None
        _owned_by_somebody_else(monkeypatch, SHARED_MEMORY / writer.name)
        assert RingReader().read(info) is None
        monkeypatch.undo()


def _owned_by_somebody_else(monkeypatch: pytest.MonkeyPatch, path: Path) -> None:
    """Let the kernel say that this file is another user's."""
    lstat, fstat, inode = Path.lstat, os.fstat, path.stat().st_ino

    def theirs(status: os.stat_result) -> os.stat_result:
        return os.stat_result([*status[:4], status[4] + 1, *status[5:]]) if status.st_ino == inode else status

    monkeypatch.setattr(Path, "lstat", lambda self: theirs(lstat(self)))
    monkeypatch.setattr(os, "fstat", lambda fd: theirs(fstat(fd)))


def test_names_in_shared_memory_cannot_be_foreseen(run_dir: Path) -> None:
    names = []
    for _ in range(3):
        writer = RingWriter(run_dir, "top", (4, 5))
        names.append(writer.name.removeprefix(f"{ring_prefix(run_dir)}top-"))
        writer.close()
    assert all(len(bytes.fromhex(name)) >= 16 for name in names)
    assert len(set(names)) == 3


@pytest.mark.parametrize("what", PLANTED)
@pytest.mark.parametrize("name", ["run.lock", "mode.lock", "mode.ipc", "rig.yaml", "follower_left.goals"])
def test_what_somebody_planted_in_the_run_directory_is_refused_with_its_name(
    tmp_path: Path, name: str, what: str
) -> None:
    """As it can lie in a directory that was open to others once."""
    run_dir = tmp_path / "run"
    run_dir.mkdir(mode=0o700)
    PLANTED[what](run_dir / name)
    with pytest.raises(TransportError, match=rf"{name}\b.*--run-dir"):
        RunDirectory(run_dir)
    assert [path.name for path in run_dir.iterdir()] in ([name], ["run.lock", name], [name, "run.lock"])


def test_a_file_of_another_user_in_the_run_directory_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_dir = tmp_path / "run"
    run_dir.mkdir(mode=0o700)
    (run_dir / "rig.yaml").write_text("name: x")
    _owned_by_somebody_else(monkeypatch, run_dir / "rig.yaml")
    with pytest.raises(TransportError, match=r"holds other files \(rig.yaml\)"):
        RunDirectory(run_dir)


def test_in_use_names_the_holder_and_the_way_out(run_dir: Path) -> None:
    with pytest.raises(
        TransportError, match=rf"in use by pid {os.getpid()} \(.*\): end it with `aloha down` or .*--run-dir"
    ):
        RunDirectory(run_dir)


def test_somebody_elses_directory_is_refused(run_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "getuid", lambda: 4242)
    for use in (RunDirectory, lambda path: Bus(path, WallClock())):
        with pytest.raises(
            TransportError, match=r"belongs to user \d+, not to you \(4242\): choose another with --run-dir"
        ):
            use(run_dir)


@pytest.mark.parametrize("open_to_others", [0o001, 0o002, 0o004, 0o010, 0o020, 0o040, 0o050, 0o055])
def test_a_directory_open_to_others_is_refused(tmp_path: Path, open_to_others: int) -> None:
    """Every single right of the group and of others, for whoever makes the directory and whoever uses it."""
    mode = 0o700 | open_to_others
    tmp_path.chmod(mode)
    for use in (RunDirectory, lambda path: Bus(path, WallClock())):
        with pytest.raises(
            TransportError, match=f"mode {mode:o}.*choose another with --run-dir, or.*chmod 700 {tmp_path}"
        ):
            use(tmp_path)


def test_a_file_or_link_in_its_place_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(TransportError, match="choose another with --run-dir"):
        RunDirectory(tmp_path / "file")
    (tmp_path / "link").symlink_to(tmp_path)
    with pytest.raises(TransportError, match="is not a directory"):
        RunDirectory(tmp_path / "link")


def test_a_directory_with_other_files_is_refused_and_left_alone(tmp_path: Path) -> None:
    project = tmp_path / "project"
    project.mkdir(mode=0o700)
    (project / "uv.lock").write_text("version = 1\n")
    (project / "newest").symlink_to(tmp_path)
    with pytest.raises(TransportError, match=r"holds other files \((newest|uv.lock)\): choose an empty or new one"):
        RunDirectory(project)
    assert sorted(path.name for path in project.iterdir()) == ["newest", "uv.lock"]


def test_no_directory_means_nothing_runs(tmp_path: Path) -> None:
    with pytest.raises(TransportError, match="nothing runs there; start the rig with `aloha up`"):
        Bus(tmp_path / "absent", WallClock())


def test_a_path_too_long_for_a_socket_is_refused_at_once(tmp_path: Path) -> None:
    path = tmp_path / ("x" * 100)
    with pytest.raises(TransportError, match="the kernel allows 107: choose a shorter run directory with --run-dir"):
        RunDirectory(path)
    assert not path.exists()


def test_what_killed_processes_left_is_removed_at_the_next_start(tmp_path: Path, spawn: Spawn) -> None:
    run_dir = tmp_path / "run"
    run_dir.mkdir(mode=0o700)
    prefix = ring_prefix(run_dir)
    first = [spawn(publish_heartbeats, run_dir), spawn(publish_frames, run_dir, 8, 8, 2, 0.01)]
    sockets = [run_dir / "mode.ipc", run_dir / "camera.top.ipc"]
    until(lambda: all(path.exists() for path in sockets) and any(SHARED_MEMORY.glob(f"{prefix}*")))
    for process in first:
        process.kill()
        process.join()
    rings = {path.name for path in SHARED_MEMORY.glob(f"{prefix}*")}
    left = {path.name for path in run_dir.iterdir()}
    assert rings
    assert left == {"mode.ipc", "mode.lock", "camera.top.ipc", "camera.top.lock"}
    with RunDirectory(run_dir) as directory:
        assert set(directory.stale) == left | rings
        assert [path.name for path in run_dir.iterdir()] == ["run.lock"]
        assert not any(SHARED_MEMORY.glob(f"{prefix}*"))


def test_the_living_keep_theirs(run_dir: Path, spawn: Spawn) -> None:
    publisher = spawn(publish_heartbeats, run_dir)
    until((run_dir / "mode.ipc").exists)
    assert lock_holder(run_dir / "mode.lock") == publisher.pid
    (run_dir / "camera.top.ipc").touch()
    (run_dir / "camera.top.lock").touch()
    (SHARED_MEMORY / f"{ring_prefix(run_dir)}top-1-1").touch()
    (run_dir / "run.lock").unlink()  # as if the owner had died; its kernel lock goes with the file's name
    with RunDirectory(run_dir) as second:
        assert set(second.stale) == {"camera.top.ipc", "camera.top.lock", f"{ring_prefix(run_dir)}top-1-1"}
        assert (run_dir / "mode.ipc").exists()
        publisher.kill()
        publisher.join()


def test_the_link_to_a_dead_process_s_terminal_is_removed(tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    run_dir.mkdir(mode=0o700)
    for name in ("dead", "living"):
        (run_dir / name).symlink_to("/dev/null")
    living = run_directory.Lock(run_dir / "living.lock", "taken")
    with RunDirectory(run_dir) as directory:
        assert directory.stale == ["dead"]
        assert (run_dir / "living").is_symlink()
        living.release()
    assert not run_dir.exists()


def test_a_lock_survives_a_race_with_its_release(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The file may vanish between open and lock: the lock must end up on the file that others will open."""
    path = tmp_path / "x.lock"
    real, raced = run_directory.fcntl.flock, []

    def flock(fd: int, operation: int) -> None:
        if not raced:
            raced.append(path.unlink())
        real(fd, operation)

    monkeypatch.setattr(run_directory.fcntl, "flock", flock)
    lock = run_directory.Lock(path, "taken by {pid}")
    assert raced
    with pytest.raises(TransportError, match=f"taken by {os.getpid()}"):
        run_directory.Lock(path, "taken by {pid}")
    lock.release()
    assert not path.exists()


def test_a_ring_of_a_dead_writer_in_a_run_directory_of_the_past_is_removed(run_dir: Path, tmp_path: Path) -> None:
    dead = SHARED_MEMORY / f"{ring_prefix(tmp_path / 'gone')}top-1-1"
    dead.touch()
    with Bus(run_dir, WallClock()) as bus:
        living = bus.own(RingWriter(run_dir, "top", (4, 5)))
        with RunDirectory(tmp_path / "another") as another:
            assert dead.name in another.stale
            assert living.name not in another.stale
    assert not dead.exists()


def test_a_writer_whose_new_ring_was_taken_for_a_dead_one_makes_another(
    run_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, taken = ring_memory.fcntl.flock, []

    def flock(fd: int, operation: int) -> None:
        if not taken:
            taken.extend(SHARED_MEMORY.glob(f"{ring_prefix(run_dir)}*"))
            taken[0].unlink()
        real(fd, operation)

    monkeypatch.setattr(ring_memory.fcntl, "flock", flock)
    with Bus(run_dir, WallClock()) as bus:
        writer = bus.own(RingWriter(run_dir, "top", (4, 5)))
        assert taken
        assert (SHARED_MEMORY / writer.name).exists()
