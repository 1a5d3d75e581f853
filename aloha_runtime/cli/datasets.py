"""Sub-commands for datasets on disk."""

from pathlib import Path
from typing import Annotated, Literal

import typer

app = typer.Typer(no_args_is_help=True, help="Datasets on disk.")

DatasetPath = Annotated[Path, typer.Argument(help="LeRobot v3 dataset folder")]


@app.command()
def info(
    dataset: DatasetPath, as_json: Annotated[bool, typer.Option("--json", help="as JSON on standard output")] = False
) -> None:
    """What a dataset holds: episodes, features, cameras, tasks, outcomes, bytes."""
    from aloha_runtime.commands.dataset_info import info as job

    job(dataset, as_json)


@app.command()
def check(
    dataset: DatasetPath,
    decode: Annotated[bool, typer.Option("--decode", help="look at every picture as well")] = False,
) -> None:
    """Everything that can be wrong, each with what to do; exit code 1 when something is."""
    from aloha_runtime.commands.dataset_info import check as job

    if not job(dataset, decode):
        raise typer.Exit(1)


@app.command()
def view(
    dataset: DatasetPath,
    episodes: Annotated[list[str] | None, typer.Argument(help="such as 3 or 7-9; all when left out")] = None,
    out: Annotated[Path, typer.Option("--out", help="folder of the page")] = Path("outputs/view"),
) -> None:
    """Episodes as a page to open in a browser: every camera in step with the joints' curves."""
    from rich.console import Console

    from aloha_runtime.commands.dataset_view import view as job
    from aloha_runtime.data.progress import progress
    from aloha_runtime.data.reader import Dataset
    from aloha_runtime.data.selection import select

    say = Console(highlight=False, soft_wrap=True).print
    chosen = select(episodes or [], Dataset(dataset).info.total_episodes)
    with progress("episodes", len(chosen), say) as advance:
        page = job(dataset, episodes or [], out, advance)
    say(f"open {page} in a browser")


@app.command()
def repair(dataset: DatasetPath) -> None:
    """Bring back the episode that a killed or full recording left open; a second time there is nothing to do."""
    from rich.console import Console

    from aloha_runtime.data.writer import DatasetWriter

    with DatasetWriter.open(dataset) as writer:
        frames, index = writer.recovered, writer.info.total_episodes - 1
    found = f"episode {index} came back with {frames} frames" if frames else "nothing to bring back"
    Console().print(f"{dataset}: {found}; it holds {index + 1} episodes")


@app.command("import-hdf5")
def import_hdf5(
    folder: Annotated[Path, typer.Argument(help="folder of ALOHA's episode_0.hdf5, episode_1.hdf5, ...")],
    out: Annotated[Path, typer.Argument(help="LeRobot v3 dataset folder to create")],
    task: Annotated[str, typer.Option("--task", help="what the episodes show, in a few words")],
    fps: Annotated[int, typer.Option("--fps", min=1)] = 50,
    channels: Annotated[
        Literal["swapped", "rgb"] | None,
        typer.Option("--channels", help="of compressed frames: swapped as ALOHA's recorders write them, or rgb"),
    ] = None,
    base: Annotated[
        bool | None, typer.Option("--keep-base/--ignore-base", help="Mobile ALOHA's base_action as a feature")
    ] = None,
) -> None:
    """ALOHA HDF5 episodes as a LeRobot dataset."""
    from rich.console import Console

    from aloha_runtime.data.import_hdf5 import import_hdf5 as job

    say = Console().print
    made = job(folder, out, task=task, fps=fps, channel_order=channels, keep_base=base, report=say)
    say(f"{out}: {len(made.episodes)} episodes, {len(made)} frames, cameras {', '.join(made.cameras) or 'none'}")
