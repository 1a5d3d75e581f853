"""Sub-commands of demonstrations, training, evaluation and checkpoints."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from aloha_runtime.cli.options import Json

app = typer.Typer()


@app.command()
def demonstrate(
    out: Annotated[Path, typer.Option("--out", help="dataset folder to create")],
    task: Annotated[Literal["transfer_cube", "insertion"], typer.Option("--task")] = "transfer_cube",
    episodes: Annotated[int, typer.Option("--episodes", min=1)] = 50,
    first_seed: Annotated[int, typer.Option("--first-seed", min=0)] = 100_000,
    workers: Annotated[int, typer.Option("--workers", min=1)] = 2,
) -> None:
    """Scripted demonstrations through teleoperation on the simulated rig, in virtual time, as a LeRobot v3 dataset."""
    from aloha_runtime.commands.demonstrate import demonstrate as job

    job(task=task, episodes=episodes, first_seed=first_seed, out=out, workers=workers)


@app.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": True})
def train(
    context: typer.Context,
    dataset: Annotated[Path, typer.Option("--dataset", help="LeRobot v3 dataset folder")],
    output_dir: Annotated[Path, typer.Option("--output-dir", help="checkpoints go here")],
    config: Annotated[Path | None, typer.Option("--config", help="YAML file of training settings")] = None,
) -> None:
    """Train ACT. Further options are fields of the training and of the policy: --steps 5000 --policy.chunk-size 50."""
    from aloha_runtime.commands.train import train as job

    job(dataset, output_dir, config, context.args)


@app.command("eval")
def evaluate(
    policy: Annotated[str, typer.Option("--policy", help="policy directory, `demo`, or `scripted`")] = "demo",
    task: Annotated[Literal["transfer_cube", "insertion"], typer.Option("--task")] = "transfer_cube",
    episodes: Annotated[int, typer.Option("--episodes", min=1)] = 50,
    seed: Annotated[int, typer.Option("--seed", min=0, help="first seed")] = 0,
    workers: Annotated[int | None, typer.Option("--workers", min=1, help="default: one a core")] = None,
    json: Json = None,
) -> None:
    """Success of a policy over many seeds of the simulated rig, in virtual time."""
    from aloha_runtime.commands import evaluate as job

    job.evaluate(policy, task, episodes, seed, workers or job.default_workers(), json)
