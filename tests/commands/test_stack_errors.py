"""What an operator reads when something is wrong: one message, the exit code of its kind, and nothing left behind."""

import errno
import fcntl
import os
import pty
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from safetensors.numpy import save_file

from aloha_runtime import cli, config
from aloha_runtime.act import config_file
from aloha_runtime.act.config import ACTConfig, aloha_inputs
from aloha_runtime.act.header import CONFIG, WEIGHTS
from aloha_runtime.run_directory import SHARED_MEMORY, Lock, RunDirectory, ring_prefix

Failing = Callable[..., str]
SHIPPED = config.CONFIG_DIR / "sim.yaml"


@pytest.fixture
def failing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Failing:
    """Run `aloha ARGUMENTS` and return its message, having checked its exit code and that nothing is left."""

    def run(*arguments: str, code: int, run_dir: Path = tmp_path / "run") -> str:
        there = run_dir.exists()
        monkeypatch.setattr(sys, "argv", ["aloha", *arguments, "--run-dir", str(run_dir)])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        out, message = capfd.readouterr()
        assert out == ""
        assert ended.value.code == code, message
        assert message.startswith("aloha: ")
        assert "Traceback" not in message
        assert run_dir.exists() == there
        assert not list(SHARED_MEMORY.glob(f"{ring_prefix(run_dir)}*"))
        return message.removeprefix("aloha: ").rstrip("\n")

    return run


@pytest.fixture
def rig_file(tmp_path: Path) -> Callable[[dict[str, Any]], str]:
    def write(rig: dict[str, Any]) -> str:
        path = tmp_path / "rig.yaml"
        path.write_text(yaml.safe_dump(rig))
        return str(path)

    return write


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    """A policy directory for the shipped simulated rig, as far as can be told without building the network."""
    return write_checkpoint(tmp_path / "policy", {"cam_high": (120, 160)})


def write_checkpoint(directory: Path, cameras: dict[str, tuple[int, int]], environment_state_dim: int = 0) -> Path:
    directory.mkdir()
    inputs = aloha_inputs(cameras, environment_state_dim)
    lerobot, _ = config_file.config_to_json(ACTConfig(input_shapes=inputs))
    (directory / CONFIG).write_text(config_file.dumps(lerobot))
    save_file({"weight": np.zeros(1000, np.float32)}, directory / WEIGHTS)
    return directory


@pytest.mark.parametrize("verb", ["stop", "arm", "park", "down"])
def test_nothing_runs(failing: Failing, verb: str) -> None:
    assert "nothing runs there; start the rig with `aloha up`" in failing(verb, code=6)


@pytest.mark.parametrize("verb", ["down", "park"])
def test_a_rig_that_was_killed(failing: Failing, tmp_path: Path, verb: str) -> None:
    """As SIGKILL of the parent leaves it: the rig's file, and locks that nobody holds."""
    run_dir = tmp_path / "run"
    run_dir.mkdir(mode=0o700)
    for name in ("run.lock", "supervisor.requests.lock", "supervisor.requests.ipc"):
        (run_dir / name).touch(mode=0o600)
    (run_dir / "rig.yaml").write_text(SHIPPED.read_text())
    said = failing(verb, code=1)
    assert f"nothing runs in {run_dir} any more: rig sim was killed, and its simulated arms ended with it" in said
    assert f"`aloha up --run-dir {run_dir}` restarts it" in said
    (run_dir / "rig.yaml").write_text((config.CONFIG_DIR / "aloha.yaml").read_text())
    said = failing(verb, code=1)
    assert "could not park its arms. Servos that had torque have it still" in said
    assert f"`aloha up --run-dir {run_dir}` with the same --rig" in said
    assert f"`aloha park --run-dir {run_dir}`" in said
    (run_dir / "rig.yaml").write_text(": no rig")
    assert "Servos that had torque have it still" in failing(verb, code=1)
    left = Lock(run_dir / "health.policy.lock", "")
    try:
        assert f"was killed, and health.policy (pid {os.getpid()}) still end" in failing(verb, code=1)
    finally:
        left.release()


def test_a_dead_run_directory(failing: Failing, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir(mode=0o700)
    assert "no supervisor runs in" in failing("stop", code=6)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["teleop", "--task", "juggle"], "no task named 'juggle': choose one of transfer_cube, insertion"),
        (["teleop", "--rig", "aloha", "--seed", "3"], "rig aloha is a real one: --seed and --task belong to"),
        (["teleop", "--rig", "aloha", "--scripted"], "--scripted needs the simulated rig, and aloha is a real one"),
        (["teleop", "--rig", "nowhere"], "no configuration named 'nowhere': choose one of aloha, aloha2, sim"),
        (["teleop", "--rig", "nowhere.yaml"], "configuration nowhere.yaml does not exist"),
        (["up", "--job", "dance"], "no job named 'dance': choose one of teleop, deploy, demonstrate"),
    ],
)
def test_a_wrong_argument(failing: Failing, arguments: list[str], message: str) -> None:
    assert message in failing(*arguments, code=2)


@pytest.mark.parametrize("command", [["teleop"], ["up"], ["deploy", "demo"]])
def test_a_mistyped_key(failing: Failing, tmp_path: Path, command: list[str]) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(SHIPPED.read_text().replace("arms_hz", "arms_hertz"))
    line = 1 + path.read_text()[: path.read_text().index("arms_hertz")].count("\n")
    assert f"{path}:{line}: unknown key 'arms_hertz'" in failing(*command, "--rig", str(path), code=2)


def absent(directory: Path) -> None:
    shutil.rmtree(directory)


def a_file(directory: Path) -> None:
    shutil.rmtree(directory)
    directory.write_text("weights")


def empty(directory: Path) -> None:
    (directory / CONFIG).unlink()


def another_kind(directory: Path) -> None:
    (directory / CONFIG).write_text((directory / CONFIG).read_text().replace('"act"', '"diffusion"'))


def not_json(directory: Path) -> None:
    (directory / CONFIG).write_text('{"type": "act"')


def without_weights(directory: Path) -> None:
    (directory / WEIGHTS).unlink()


def truncated(directory: Path) -> None:
    (directory / WEIGHTS).write_bytes((directory / WEIGHTS).read_bytes()[:-100])


def other_weights(directory: Path) -> None:
    (directory / WEIGHTS).write_bytes(b"PK\x03\x04" + bytes(200))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (absent, "does not exist; give the path of a policy directory"),
        (a_file, "is a file; give the directory"),
        (empty, f"has no {CONFIG}; it is not a LeRobot policy directory"),
        (another_kind, "policy type is 'diffusion', must be 'act'"),
        (not_json, "cannot be read as JSON"),
        (without_weights, f"{WEIGHTS} is missing; copy the whole policy directory"),
        (truncated, f"{WEIGHTS} is truncated or not a safetensors file"),
        (other_weights, f"{WEIGHTS} is truncated or not a safetensors file"),
    ],
)
@pytest.mark.parametrize("command", ["deploy", "up"])
def test_a_checkpoint_that_is_none(
    failing: Failing, checkpoint: Path, damage: Callable[[Path], None], message: str, command: str
) -> None:
    damage(checkpoint)
    where = [str(checkpoint)] if command == "deploy" else ["--job", "deploy", "--checkpoint", str(checkpoint)]
    said = failing(command, *where, code=4)
    assert message in said
    assert str(checkpoint) in said


def test_a_checkpoint_with_other_cameras(failing: Failing, tmp_path: Path) -> None:
    path = str(write_checkpoint(tmp_path / "other", {"cam_top": (120, 160)}))
    assert "needs camera 'cam_top', the rig has: cam_high" in failing("deploy", path, code=4)
    path = str(write_checkpoint(tmp_path / "larger", {"cam_high": (480, 640)}))
    assert "trained on 640x480 images of 'cam_high', the rig delivers 160x120" in failing("deploy", path, code=4)


def test_a_checkpoint_that_only_a_simulator_can_feed(failing: Failing, tmp_path: Path) -> None:
    path = str(write_checkpoint(tmp_path / "truth", {"cam_high": (480, 640)}, 7))
    said = failing("deploy", path, "--rig", "aloha", code=4)
    assert "rig aloha is a real one: use a checkpoint trained on images" in said


def test_no_torch_is_needed_to_refuse_a_checkpoint() -> None:
    code = "import sys, aloha_runtime.commands.operate; print('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "False\n"


def test_a_run_directory_in_use(failing: Failing, tmp_path: Path) -> None:
    with RunDirectory(tmp_path / "run"):
        said = failing("teleop", code=6)
    assert f"in use by pid {os.getpid()} (" in said
    assert "end it with `aloha down` or choose another with --run-dir" in said


def test_a_run_directory_that_others_can_enter(failing: Failing, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir(mode=0o755)
    assert f"chmod 700 {tmp_path / 'run'}" in failing("teleop", code=6)


def test_a_run_directory_with_a_name_too_long_for_sockets(failing: Failing, tmp_path: Path) -> None:
    assert "shorter run directory" in failing("teleop", code=6, run_dir=tmp_path / ("x" * 100))


ARMS = ("follower_left", "follower_right", "leader_left", "leader_right")


def lab(ports: Path, **cameras: dict[str, Any]) -> dict[str, Any]:
    """A real rig with its ports in a folder."""
    arms = {arm: {"port": str(ports / f"ttyDXL_{arm}")} for arm in ARMS}
    return {"name": "lab", "kit": "aloha", "arms": arms, "cameras": cameras}


@pytest.fixture
def busy_ports(tmp_path: Path) -> Iterator[Path]:
    """Four ports that this process holds."""
    held = []
    for arm in ARMS:
        master, slave = pty.openpty()
        (tmp_path / f"ttyDXL_{arm}").symlink_to(os.ttyname(slave))
        fcntl.flock(slave, fcntl.LOCK_EX)
        held += [master, slave]
    yield tmp_path
    for descriptor in held:
        os.close(descriptor)


def test_missing_ports(failing: Failing, rig_file: Callable[[dict[str, Any]], str], tmp_path: Path) -> None:
    said = failing("teleop", "--rig", rig_file(lab(tmp_path)), code=3)
    for line in said.splitlines():  # one each for leaders and followers, if both had said so by then
        assert "could not start: " in line
        assert f"{tmp_path}/ttyDXL_" in line
        assert "does not exist; plug in the adapter and its power" in line


def test_busy_ports(failing: Failing, rig_file: Callable[[dict[str, Any]], str], busy_ports: Path) -> None:
    said = failing("teleop", "--rig", rig_file(lab(busy_ports)), code=3)
    assert f"is in use by process {os.getpid()} (" in said
    assert "stop that process first" in said


def camera_process(rig: str, run_dir: Path, *wrap: str, **environment: str) -> tuple[int, str]:
    """Exit code and message of camera@cam_high by itself."""
    module = "aloha_runtime.processes.camera"
    command = [*wrap, sys.executable, "-m", module, "camera@cam_high", "--rig", rig, "--run-dir", str(run_dir)]
    ended = subprocess.run(
        command, capture_output=True, text=True, env={**os.environ, **environment}, check=False, timeout=100
    )
    return ended.returncode, ended.stderr


@pytest.fixture
def directory(tmp_path: Path) -> Iterator[Path]:
    with RunDirectory(tmp_path / "run") as made:
        yield made.path
        assert [path.name for path in made.path.iterdir()] == ["run.lock"]
        assert not list(SHARED_MEMORY.glob(f"{ring_prefix(made.path)}*"))


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ({"type": "opencv", "device": "/dev/CAM_NOWHERE"}, "there is no /dev/CAM_NOWHERE"),
        ({"type": "realsense", "serial": "000000000009"}, "no RealSense with serial 000000000009"),
    ],
)
def test_an_unplugged_camera(
    rig_file: Callable[[dict[str, Any]], str], directory: Path, source: dict[str, Any], message: str
) -> None:
    code, said = camera_process(rig_file(lab(directory, cam_high=source)), directory)
    assert code == 3
    assert said.startswith(f"camera@cam_high: cam_high: {message}")
    assert said.count("\n") == 1


@pytest.mark.parametrize("asked", [None, "egl"])
def test_no_off_screen_gl(directory: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, asked: str | None) -> None:
    monkeypatch.delenv("MUJOCO_GL", raising=False)
    remedy = "install one with: sudo apt-get install"
    if asked:
        monkeypatch.setenv("MUJOCO_GL", asked)
        remedy = f"unset MUJOCO_GL, which asks for {asked}"
    for name in ("libEGL.so.1", "libEGL.so", "libOSMesa.so.8", "libOSMesa.so.6", "libOSMesa.so", "libGL.so.1"):
        (tmp_path / name).write_text("not a library")
    code, said = camera_process("sim", directory, LD_LIBRARY_PATH=str(tmp_path))
    assert code == 7
    assert "no off-screen OpenGL for the simulated cameras (egl: " in said
    assert remedy in said
    assert said.count("\n") == 1


def test_no_shared_memory_left(directory: Path, rig_file: Callable[[dict[str, Any]], str]) -> None:
    tiny = ("unshare", "-m", "sh", "-c", 'mount -t tmpfs -o size=64k tmpfs /dev/shm && exec "$@"', "sh")
    if subprocess.run([*tiny, "true"], capture_output=True, check=False).returncode != 0:
        pytest.skip("no right to mount a small /dev/shm")
    video = directory.parent / "video.mp4"
    rig = lab(directory, cam_high={"type": "opencv", "device": str(video), "width": 160, "height": 120, "fps": 30})
    write_video(video)
    code, said = camera_process(rig_file(rig), directory, *tiny)
    assert code == 6
    assert "no shared memory left for camera cam_high: its ring needs 0.5 MiB" in said
    assert "--shm-size" in said
    assert said.count("\n") == 1


def write_video(path: Path) -> None:
    import cv2

    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"mp4v"), 30, (160, 120))
    for _ in range(30):
        writer.write(np.zeros((120, 160, 3), np.uint8))
    writer.release()


def test_an_error_of_the_operating_system_is_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full() -> None:
        raise OSError(errno.ENOSPC, "No space left on device", "outputs/report.html")

    monkeypatch.setattr(cli, "app", full)
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == 1
    assert capsys.readouterr().err == "aloha: [Errno 28] No space left on device: 'outputs/report.html'\n"
