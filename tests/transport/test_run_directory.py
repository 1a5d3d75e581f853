"""The run directory: private, one owner, and nothing left behind by the living or the dead."""

import os
from collections.abc import Callable
from multiprocessing.process import BaseProcess
from pathlib import Path

import pytest
from transport_workers import publish_frames, publish_heartbeats, until

from aloha_runtime import ring_memory, run_directory
from aloha_runtime.bus import Bus
from aloha_runtime.errors import TransportError
from aloha_runtime.realtime import WallClock
from aloha_runtime.ring_memory import RingWriter
from aloha_runtime.run_directory import SHARED_MEMORY, RunDirectory, default_run_dir, lock_holder, ring_prefix

Spawn = Callable[..., BaseProcess]


def test_created_for_this_user_only_and_removed(tmp_path: Path) -> None:
    with RunDirectory(tmp_path / "run") as directory:
        assert directory.path.stat().st_mode & 0o777 == 0o700
    assert list(tmp_path.iterdir()) == []


def test_default_place(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", "/run/user/7")
    assert default_run_dir() == Path("/run/user/7/aloha")
    monkeypatch.delenv("XDG_RUNTIME_DIR")
    assert default_run_dir() == Path(f"/tmp/aloha-{os.getuid()}")


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
