"""`aloha eval`: episodes of real policies in the real environments, reports, refusals and interruptions."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import av
import numpy as np
import psutil
import pytest
import torch
from typer.testing import CliRunner

from aloha_runtime.act import ACTConfig, ACTPolicy
from aloha_runtime.act.config import SMALL_POLICY, aloha_inputs
from aloha_runtime.act.worker import predictor
from aloha_runtime.cli import app
from aloha_runtime.commands import evaluate as job
from aloha_runtime.commands.evaluate import Evaluation, evaluate
from aloha_runtime.commands.evaluate_episode import Ensembled, player
from aloha_runtime.commands.evaluate_figures import Contender, Trial
from aloha_runtime.errors import AlohaError, CheckpointError, ConfigError, SimulationError
from aloha_runtime.sim import make_env
from aloha_runtime.sim.env import Env, Observation

TINY: dict[str, Any] = {
    **SMALL_POLICY,
    "estimate_dim": 0,
    "chunk_size": 8,
    "n_action_steps": 5,
    "dim_model": 32,
    "n_heads": 2,
    "dim_feedforward": 64,
    "n_encoder_layers": 1,
    "small_cnn_width": 8,
    "small_cnn_keypoints": 4,
}
START = [0.0, -0.96, 1.16, 0.0, -0.3, 0.0, 0.1] * 2
"""Mean action of the untrained policies, so that the arms stay about where they are."""


def untrained(**changes: Any) -> ACTPolicy:
    torch.manual_seed(0)
    config = ACTConfig(**{"input_shapes": aloha_inputs({}, environment_state_dim=7), **TINY, **changes})
    numbers = {name: torch.ones(shape[-1:]) for name, shape in (config.input_shapes | config.output_shapes).items()}
    stats = {name: {"mean": 0 * one, "std": 0.1 * one} for name, one in numbers.items()}
    stats |= {name: {"mean": torch.zeros(3, 1, 1), "std": torch.ones(3, 1, 1)} for name in config.images}
    if config.action_dim == 14:
        stats["action"]["mean"] = torch.tensor(START)
    return ACTPolicy(config, stats, pretrained_backbone=False).eval()


@pytest.fixture(scope="module")
def blind(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A policy directory without cameras, which sees where the cube is."""
    directory = tmp_path_factory.mktemp("blind")
    untrained().save_pretrained(directory)
    return directory


@pytest.fixture(scope="module")
def seeing(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A policy directory with one small camera."""
    directory = tmp_path_factory.mktemp("seeing")
    untrained(input_shapes=aloha_inputs({"cam_high": (48, 64)})).save_pretrained(directory)
    return directory


class Watched:
    """A policy's environment that counts how often it is looked at."""

    def __init__(self, env: Env) -> None:
        self.env, self.looks = env, 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self.env, name)

    def observe(self) -> Observation:
        self.looks += 1
        return self.env.observe()


@pytest.mark.parametrize(("mode", "looks"), [("off", 3), ("paper", 12)])
def test_a_policy_acts_as_select_action_does(mode: str, looks: int) -> None:
    policy = untrained(**({"temporal_ensemble_coeff": 0.01, "n_action_steps": 1} if mode == "paper" else {}))
    env = Watched(make_env("transfer_cube", cameras={}))
    env.reset(seed=1)
    pilot = Ensembled(policy, predictor(policy, threads=1), mode)  # type: ignore[arg-type]
    pilot.reset(env)
    policy.reset()
    for _ in range(12):
        expected = policy.select_action(env.env.observe())
        action = pilot(env)
        np.testing.assert_allclose(action, expected, atol=1e-6)
        env.advance(action)
    assert env.looks == looks


def test_newest_leans_on_the_newest_chunk_and_an_episode_starts_afresh() -> None:
    policy = untrained()
    chunks = [np.full((8, 14), value) for value in (0.0, 1.0)]
    env = make_env("transfer_cube", cameras={})
    means = {}
    for mode in ("paper", "newest"):
        given = iter(chunks * 2)
        pilot = Ensembled(policy, lambda _, given=given: next(given), mode)  # type: ignore[arg-type, misc]
        for _ in range(2):
            pilot.reset(env)
            pilot(env)
            means[mode] = pilot(env)[0]
    assert means["paper"] == pytest.approx(np.exp(-0.01) / (1 + np.exp(-0.01)))
    assert means["newest"] == pytest.approx(1 - means["paper"])


def test_the_same_seeds_give_the_same_episodes_whatever_the_workers(blind: Path, tmp_path: Path) -> None:
    asked = {"policies": (str(blind), "scripted"), "task": "transfer_cube", "episodes": 3, "first_seed": 4}
    untrained_policy, scripted = evaluate(Evaluation(**asked, workers=2, max_steps=220), tmp_path / "two.json")
    play = player((untrained_policy.contender, scripted.contender), "transfer_cube", 220)
    for number, result in enumerate((untrained_policy, scripted)):
        assert [play(Trial(number, seed, None)) for seed in (4, 5, 6)] == list(result.outcomes)
    assert untrained_policy.solved == 0
    assert {outcome.steps for outcome in untrained_policy.outcomes} == {220}
    assert [outcome.seed for outcome in scripted.outcomes] == [4, 5, 6]
    assert scripted.solved == sum(outcome.stage == 4 for outcome in scripted.outcomes) >= 1
    assert all(outcome.success_step == outcome.steps for outcome in scripted.outcomes if outcome.success)
    report = json.loads((tmp_path / "two.json").read_text())
    assert [len(policy["episodes"]) for policy in report["policies"]] == [3, 3]
    assert report["paired"][0]["only_first"] == 0


def test_the_report_is_a_folder_with_a_page_and_videos(seeing: Path, tmp_path: Path) -> None:
    out = tmp_path / "report"
    (result,) = evaluate(Evaluation((str(seeing),), "insertion", 2, 0, 2, max_steps=20, out=out, videos=True))
    assert [outcome.steps for outcome in result.outcomes] == [20, 20]
    assert json.loads((out / "results.json").read_text())["task"] == "insertion"
    page = (out / "index.html").read_text()
    for seed in (0, 1):
        path = out / "videos" / "policy_1" / f"seed_{seed}.mp4"
        assert f'"{path.relative_to(out)}"' in page
        assert len(pictures_of(path)) == 10 + 12
    assert list(tmp_path.iterdir()) == [out]


def test_gym_alohas_episodes_are_filmed_by_its_own_camera(seeing: Path, tmp_path: Path) -> None:
    play = player((Contender(str(seeing), "off"),), "AlohaInsertion-v0", 4)
    assert play(Trial(0, 3, tmp_path / "3.mp4")).steps == 4
    pictures = pictures_of(tmp_path / "3.mp4")
    assert len(pictures) == 2 + 12
    env = make_env("AlohaInsertion-v0")
    top = env.reset(seed=3)[0]["observation.images.top"]
    assert np.abs(pictures[0][32:].astype(int) - top[32:]).mean() < 3  # below the caption, but for the coding
    env.close()


def pictures_of(path: Path) -> list[Any]:
    """All pictures of a video that a browser can play."""
    with av.open(path) as container:
        stream = container.streams.video[0]
        assert (stream.codec_context.name, stream.width, stream.height) == ("h264", 640, 480)
        assert (stream.codec_context.pix_fmt, stream.average_rate) == ("yuv420p", 25)
        return [frame.to_ndarray(format="rgb24") for frame in container.decode(stream)]


def test_a_report_replaces_a_report_and_nothing_else(tmp_path: Path) -> None:
    report = tmp_path / "a" / "report"
    for name in ("old", "new"):
        with job._folder(report) as folder:
            (folder / job.RESULTS).touch()
            (folder / name).touch()
    assert sorted(path.name for path in report.iterdir()) == [".written.json", "new", job.RESULTS]
    with pytest.raises(KeyboardInterrupt), job._folder(report):
        raise KeyboardInterrupt
    assert list(report.parent.iterdir()) == [report]
    assert (report / "new").exists()

    (report / "notes.txt").write_text("mine")
    with pytest.raises(AlohaError, match=r"notes.txt.*--out"), job._folder(report):
        raise AssertionError("it was not refused")
    (report / "notes.txt").unlink()
    (report / "new").write_text("annotated")
    with pytest.raises(AlohaError, match=r"new, which no evaluation wrote so"), job._folder(report):
        raise AssertionError("it was not refused")
    assert (report / "new").read_text() == "annotated"

    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter").touch()
    for taken in (tmp_path / "thesis", tmp_path / "thesis" / "chapter", Path("/proc/none")):
        with pytest.raises(AlohaError, match="--out"), job._folder(taken):
            raise AssertionError("it was not refused")
    assert (tmp_path / "thesis" / "chapter").exists()


def test_wrong_questions_are_refused_before_anything_starts() -> None:
    with pytest.raises(SimulationError, match=r"no task 'fold'.*AlohaTransferCube-v0"):
        evaluate(Evaluation(("demo",), "fold", 1, 0, 1))
    with pytest.raises(ConfigError, match=r"'mean' is not one of off, paper, newest"):
        evaluate(Evaluation(("demo",), "insertion", 1, 0, 1, ensembles=("paper", "mean")))
    for path in (Path("/proc/none/x.json"), Path("/tmp")):
        with pytest.raises(AlohaError, match=r"cannot be written to .*--json"):
            evaluate(Evaluation(("demo",), "insertion", 1, 0, 1), path)


def test_a_policy_that_does_not_exist_is_named(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"absent.*does not exist"):
        player((Contender(str(tmp_path / "absent"), "paper"),), "insertion", None)


@pytest.mark.parametrize(
    ("changes", "task", "message"),
    [
        ({}, "insertion", r"observation.environment_state \(7,\).*insertion.*\(14,\).*trained on this task"),
        ({"output_shapes": {"action": (7,)}}, "transfer_cube", r"action \(7,\).*\(14,\)"),
        ({"input_shapes": aloha_inputs({"cam_belly": (48, 64)})}, "insertion", r"no camera 'cam_belly'.*cam_high"),
        (
            {"input_shapes": aloha_inputs({"cam_high": (48, 64), "cam_low": (48, 64)})},
            "AlohaInsertion-v0",
            r"no camera 'cam_high'.*top",
        ),
        ({"input_shapes": aloha_inputs({"top": (720, 1280)})}, "AlohaInsertion-v0", r"640x480.*1280x720"),
    ],
)
def test_a_policy_for_something_else_is_refused(
    tmp_path: Path, changes: dict[str, Any], task: str, message: str
) -> None:
    untrained(**changes).save_pretrained(tmp_path)
    with pytest.raises(AlohaError, match=message):
        player((Contender(str(tmp_path), "paper"),), task, None)


def test_a_device_that_is_not_there_is_named(blind: Path) -> None:
    with pytest.raises(CheckpointError, match="cannot run on --device cuda:77"):
        player((Contender(str(blind), "paper"),), "transfer_cube", None, "cuda:77")


def test_numbers_that_are_not_finite_move_nothing(blind: Path, tmp_path: Path) -> None:
    known = ACTPolicy.from_pretrained(blind)
    stats = {name: dict(values) for name, values in known.normalizer.stats.items()}
    stats["action"]["std"] = torch.full_like(stats["action"]["std"], 9e17)
    policy = ACTPolicy(known.config, stats)
    with torch.no_grad():  # each number can be a policy's, their product leaves float32
        policy.model.action_head.weight.fill_(9e17)
        policy.model.action_head.bias.fill_(9e17)
        for parameter in policy.model.decoder.norm.parameters():
            parameter.fill_(9e17)
    policy.save_pretrained(tmp_path)
    play = player((Contender(str(tmp_path), "paper"),), "transfer_cube", None)
    with pytest.raises(CheckpointError, match=r"failed at seed 3: chunk for tick 0 has values that are not finite"):
        play(Trial(0, 3, None))


def test_without_opengl_what_to_do_is_said() -> None:
    """`tests/sim/test_render.py` has the message that names the packages to install."""
    code = "from aloha_runtime.sim import make_env; make_env('AlohaInsertion-v0')"
    environment = {**os.environ, "MUJOCO_GL": "bogus"}
    ended = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    assert "SimulationError: no off-screen OpenGL" in ended.stderr
    assert "unset MUJOCO_GL, which asks for bogus" in ended.stderr


def test_without_gym_aloha_the_command_that_installs_it_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "gym_aloha", None)
    with pytest.raises(SimulationError, match=r"pip install 'aloha-runtime\[sim\]'"):
        make_env("AlohaInsertion-v0")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_an_interrupted_evaluation_leaves_nothing(seeing: Path, tmp_path: Path, number: signal.Signals) -> None:
    out = tmp_path / "report"
    arguments = [
        "--policy",
        str(seeing),
        "--max-steps",
        "25",
        "--episodes",
        "500",
        "--workers",
        "1",
        "--video",
        "--out",
        str(out),
    ]
    command = [sys.executable, "-u", "-m", "aloha_runtime.cli", "eval", *arguments]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as running:
        assert running.stdout is not None
        assert running.stderr is not None
        while "seed" not in running.stdout.readline():
            pass
        family = psutil.Process(running.pid).children(recursive=True)
        assert len(family) >= 2
        running.send_signal(number)
        running.communicate(timeout=60)
    assert running.returncode == (-number if number == signal.SIGKILL else 130)
    _, alive = psutil.wait_procs(family, timeout=30)
    assert alive == []
    assert not out.exists()
    if number != signal.SIGKILL:
        assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "line",
    [
        "--policy P --task AlohaInsertion-v0 --episodes 50 --video",
        "--policy-repo-id P --env-name AlohaInsertion-v0 --num-eval-episodes 50 --save-video true",
        "--policy_repo_id P --env_name AlohaInsertion-v0 --num_eval_episodes 50 --save_video=true",
        "--policy.path=P --env.type=aloha --env.task=AlohaInsertion-v0 --eval.n_episodes=50 --save-video true",
    ],
)
def test_lerobots_spellings_ask_the_same(monkeypatch: pytest.MonkeyPatch, line: str) -> None:
    asked: list[Any] = []
    monkeypatch.setattr(job, "evaluate", lambda *arguments: asked.append(arguments))
    outcome = CliRunner().invoke(app, ["eval", *line.split(), "--workers", "2"])
    assert outcome.exit_code == 0, outcome.output
    wanted = Evaluation(("P",), "AlohaInsertion-v0", 50, 0, 2, out=Path("outputs/eval"), videos=True)
    assert asked == [(wanted, None)]


def test_more_of_the_command_line(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []
    monkeypatch.setattr(job, "evaluate", lambda *arguments: asked.append(arguments))
    line = "--policy a --policy b --ensemble off --ensemble newest --seed 7 --max-steps 400 --json x"
    theirs = "--eval.batch_size=3 --policy.device=cuda --save-video false"
    assert CliRunner().invoke(app, ["eval", *line.split(), *theirs.split()]).exit_code == 0
    wanted = Evaluation(
        ("a", "b"), "transfer_cube", 50, 7, 3, ensembles=("off", "newest"), max_steps=400, device="cuda"
    )
    assert asked == [(wanted, Path("x"))]
    assert CliRunner().invoke(app, ["eval", "--polizy", "a"]).exit_code != 0
    assert len(asked) == 1


def test_the_python_recipe(seeing: Path) -> None:
    policy = ACTPolicy.from_pretrained(seeing)
    env = make_env("AlohaInsertion-v0", cameras=policy.config.cameras, max_steps=3)
    observation, info = env.reset(seed=0)
    policy.reset()
    done = False
    while not done:
        action = policy.select_action(observation)
        observation, reward, terminated, truncated, info = env.step(action)
        done = terminated or truncated
    assert (reward, truncated, info["is_success"]) == (0.0, True, False)
    env.close()
