"""Sub-commands of demonstrations, training, evaluation and checkpoints."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from aloha_runtime.cli.options import Json

app = typer.Typer()


@app.command()
def demonstrate(
    out: Annotated[Path, typer.Option("--out", help="dataset folder to create")],
    task: Annotated[str, typer.Option("--task", help="as `aloha eval` has them: transfer_cube, ...")] = "transfer_cube",
    episodes: Annotated[int, typer.Option("--episodes", min=1)] = 50,
    first_seed: Annotated[int, typer.Option("--first-seed", min=0)] = 100_000,
    workers: Annotated[int, typer.Option("--workers", min=1)] = 2,
    with_object_poses: Annotated[
        bool,
        typer.Option("--with-object-poses", help="for policies that estimate them; other trainers take them as input"),
    ] = False,
) -> None:
    """Scripted demonstrations as a LeRobot v3 dataset: through teleoperation on the simulated rig, or in gym-aloha."""
    from aloha_runtime.commands.demonstrate import demonstrate as job

    job(
        task=task,
        episodes=episodes,
        first_seed=first_seed,
        out=out,
        workers=workers,
        with_object_poses=with_object_poses,
    )


@app.command(
    context_settings={"allow_extra_args": True, "ignore_unknown_options": True, "allow_interspersed_args": False},
    add_help_option=False,
)
def train(context: typer.Context) -> None:
    """Train ACT: --dataset PATH --output-dir OUT [--steps 5000 --policy.chunk-size 50 ...]; --help lists everything."""
    from aloha_runtime.commands.train import train as job

    job(context.args)


_LEROBOT_EVAL = {
    "policy-repo-id": "policy", "policy.path": "policy", "policy.pretrained-path": "policy",
    "env-name": "task", "env.task": "task",
    "num-eval-episodes": "episodes", "eval.n-episodes": "episodes",
    "eval.batch-size": "workers", "policy.device": "device", "output-dir": "out", "env.episode-length": "max-steps",
}  # fmt: skip
"""LeRobot's spellings of the options of `aloha eval`, old and new."""


def _ours(option: str) -> str:
    option = option.replace("_", "-")
    return _LEROBOT_EVAL.get(option, option)


@app.command("eval", context_settings={"token_normalize_func": _ours})
def evaluate(
    policy: Annotated[
        list[str], typer.Option("--policy", help="policy directory, `demo`, or `scripted`; several are compared")
    ] = ["demo"],  # noqa: B006 - never changed
    task: Annotated[
        str,
        typer.Option("--task", help="AlohaTransferCube-v0, AlohaInsertion-v0 or, on the rig, transfer_cube, insertion"),
    ] = "transfer_cube",
    episodes: Annotated[int, typer.Option("--episodes", min=1)] = 50,
    seed: Annotated[int, typer.Option("--seed", min=0, help="first seed")] = 0,
    ensemble: Annotated[
        list[str],
        typer.Option("--ensemble", help="off, paper or newest; several are compared"),
    ] = ["paper"],  # noqa: B006 - never changed
    max_steps: Annotated[
        int | None, typer.Option("--max-steps", min=1, help="default: the task's, 300 or 400 on the rig")
    ] = None,
    video: Annotated[bool, typer.Option("--video", help="a video of every episode, in the report's folder")] = False,
    out: Annotated[Path | None, typer.Option("--out", help="folder of the report; with --video: outputs/eval")] = None,
    workers: Annotated[int | None, typer.Option("--workers", min=1, help="default: one a core")] = None,
    device: Annotated[str, typer.Option("--device", help="cpu, or cuda for a large policy")] = "cpu",
    json: Json = None,
    save_video: Annotated[Literal["true", "false"], typer.Option("--save-video", hidden=True)] = "false",
    env_type: Annotated[Literal["aloha"], typer.Option("--env.type", hidden=True)] = "aloha",
) -> None:
    """Success of policies over many seeds of a task, in virtual time. LeRobot's spellings of the options work too."""
    from aloha_runtime.commands.evaluate import Evaluation
    from aloha_runtime.commands.evaluate import evaluate as job
    from aloha_runtime.commands.workers import default_workers

    videos = video or save_video == "true"
    folder = out or (Path("outputs/eval") if videos else None)
    job(
        Evaluation(
            policies=tuple(policy), task=task, episodes=episodes, first_seed=seed, workers=workers or default_workers(),
            ensembles=tuple(ensemble), max_steps=max_steps, device=device, out=folder, videos=videos,
        ),
        json,
    )  # fmt: skip


convert = typer.Typer(no_args_is_help=True, help="Policies of others, in our format.")
app.add_typer(convert, name="convert")


@convert.command("checkpoint")
def convert_checkpoint(
    source: Annotated[Path, typer.Argument(help="policy_best.ckpt of the original ACT code")],
    out: Annotated[Path, typer.Argument(help="policy directory to create")],
    stats: Annotated[Path, typer.Option("--stats", help="dataset_stats.pkl of the same run")],
    cameras: Annotated[str, typer.Option("--cameras", help="in the order of training, by commas: cam_high,cam_low")],
    n_heads: Annotated[int, typer.Option("--n-heads", min=1, help="attention heads; the original's default is 8")] = 8,
    height: Annotated[int, typer.Option("--height", min=1, help="of the images, in pixels")] = 480,
    width: Annotated[int, typer.Option("--width", min=1)] = 640,
    force: Annotated[bool, typer.Option("--force", help="replace a policy that is there")] = False,
) -> None:
    """A checkpoint of the original ACT code as a LeRobot policy directory. Nothing in the files is run."""
    from aloha_runtime.commands.convert import checkpoint as job

    job(source, out, stats, cameras, n_heads, height, width, force=force)


@app.command()
def export(
    checkpoint: Annotated[str, typer.Argument(help="LeRobot policy directory, or `demo`")],
    engine: Annotated[
        str, typer.Option("--engine", help="onnx-fp32, openvino-fp32, onnx-int8, openvino-bf16 or cuda-fp16")
    ] = "onnx-fp32",
    calibration: Annotated[
        Path | None, typer.Option("--calibration", help="dataset of the policy's task, for int8, bf16 and fp16")
    ] = None,
) -> None:
    """A faster engine of a checkpoint, in its folder `engines`; refused when its actions are too far from eager's."""
    from aloha_runtime.commands.export import export as job

    job(checkpoint, engine, calibration)
