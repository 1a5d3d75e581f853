"""Sub-commands for datasets on disk."""

from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Annotated, Literal

import typer

app = typer.Typer(no_args_is_help=True, help="Datasets on disk.")

DatasetPath = Annotated[Path, typer.Argument(help="LeRobot v3 dataset folder")]
Episodes = Annotated[list[str], typer.Argument(help="such as 3 or 7-9")]


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
    rrd: Annotated[Path | None, typer.Option("--rrd", help="instead, one episode as a recording for Rerun")] = None,
) -> None:
    """Episodes as a page to open in a browser: every camera in step with the joints' curves."""
    from rich.console import Console

    if rrd is not None:
        _view_in_rerun(dataset, episodes or [], rrd)
        return

    from aloha_runtime.commands.dataset_view import view as job
    from aloha_runtime.data.progress import progress
    from aloha_runtime.data.reader import Dataset
    from aloha_runtime.data.selection import select

    say = Console(highlight=False, soft_wrap=True).print
    chosen = select(episodes or [], Dataset(dataset).info.total_episodes)
    with progress("episodes", len(chosen), say) as advance:
        page = job(dataset, episodes or [], out, advance)
    say(f"open {page} in a browser")


def _view_in_rerun(dataset: Path, episodes: list[str], out: Path) -> None:
    from rich.console import Console

    from aloha_runtime.commands.dataset_rrd import rrd as job

    if len(episodes) != 1 or not episodes[0].isdigit():
        raise typer.BadParameter("--rrd takes one episode, such as 3")
    job(dataset, int(episodes[0]), out)
    Console(highlight=False, soft_wrap=True).print(f"open it: rerun {out}")


@app.command()
def repair(dataset: DatasetPath) -> None:
    """Bring back the episode that a killed or full recording left open; a second time there is nothing to do."""
    from rich.console import Console

    from aloha_runtime.data import exchange
    from aloha_runtime.data.writer import DatasetWriter

    if exchange.settle(dataset):
        Console().print(f"{dataset}: back in its place, from which an interrupted edit had taken it")
    with DatasetWriter.open(dataset) as writer:
        frames, index = writer.recovered, writer.info.total_episodes - 1
    found = f"episode {index} came back with {frames} frames" if frames else "nothing to bring back"
    Console().print(f"{dataset}: {found}; it holds {index + 1} episodes")


@app.command()
def delete(dataset: DatasetPath, episodes: Episodes) -> None:
    """Leave episodes out; the others move up."""
    _edit(lambda edit, advance: edit.delete(dataset, episodes, advance), dataset)


@app.command()
def relabel(
    dataset: DatasetPath,
    episodes: Episodes,
    task: Annotated[str | None, typer.Option("--task", help="what they show")] = None,
    outcome: Annotated[Literal["success", "failure"] | None, typer.Option("--outcome")] = None,
) -> None:
    """Give episodes another task or outcome."""
    _edit(lambda edit, advance: edit.relabel(dataset, episodes, task, outcome, advance), dataset)


@app.command()
def trim(
    dataset: DatasetPath,
    episode: Annotated[int, typer.Argument(min=0)],
    start: Annotated[float | None, typer.Option("--from", min=0, help="seconds")] = None,
    end: Annotated[float | None, typer.Option("--to", min=0, help="seconds")] = None,
    still: Annotated[
        bool, typer.Option("--still", help="cut off the time at either end in which nothing moves")
    ] = False,
) -> None:
    """Cut an episode at its ends."""
    _edit(lambda edit, advance: edit.trim(dataset, episode, start, end, still, advance), dataset)


@app.command()
def stats(dataset: DatasetPath) -> None:
    """Compute all statistics again."""
    _edit(lambda edit, advance: edit.restat(dataset, advance), dataset)


@app.command()
def reencode(
    dataset: DatasetPath, codec: Annotated[Literal["h264", "av1", "lossless"], typer.Option("--codec")] = "h264"
) -> None:
    """Encode all videos again."""
    _edit(lambda edit, advance: edit.reencode(dataset, codec, advance), dataset)


@app.command()
def compact(dataset: DatasetPath) -> None:
    """Few large files instead of many small ones."""
    _edit(lambda edit, advance: edit.compact(dataset, advance), dataset)


@app.command()
def split(
    dataset: DatasetPath,
    first: Annotated[Path, typer.Argument(help="new folder")],
    second: Annotated[Path, typer.Argument(help="new folder of all others")],
    episodes: Annotated[
        list[str] | None, typer.Option("--episodes", help="of the first, such as 0-39; may be given again")
    ] = None,
    at: Annotated[int | None, typer.Option("--at", help="episode with which the second begins")] = None,
    share: Annotated[float | None, typer.Option("--share", help="of all episodes, such as 0.8")] = None,
) -> None:
    """Two new datasets from one, which stays as it is."""
    if sum(choice is not None for choice in (episodes, at, share)) != 1:
        raise typer.BadParameter("say one of --episodes, --at and --share")
    from aloha_runtime.data import split_merge

    words = episodes or split_merge.first_episodes(dataset, at, share)
    _edit(lambda _, advance: split_merge.split(dataset, first, second, words, advance), dataset)


@app.command()
def merge(
    datasets: Annotated[list[Path], typer.Argument(help="two or more dataset folders")],
    out: Annotated[Path, typer.Argument(help="new folder")],
) -> None:
    """Datasets one after the other as a new one; they stay as they are."""
    from aloha_runtime.data import split_merge

    _edit(lambda _, advance: split_merge.merge(datasets, out, advance), *datasets)


@app.command()
def rename(
    dataset: DatasetPath,
    camera: Annotated[list[str] | None, typer.Option("--camera", help="OLD=NEW; may be given again")] = None,
    joint: Annotated[list[str] | None, typer.Option("--joint", help="OLD=NEW; may be given again")] = None,
    task: Annotated[list[str] | None, typer.Option("--task", help="OLD=NEW; may be given again")] = None,
    robot_type: Annotated[str | None, typer.Option("--robot-type")] = None,
) -> None:
    """Other names for cameras, joints, tasks and the robot type; nothing else changes."""
    from aloha_runtime.data import rename as renaming

    cameras, joints, tasks = (renaming.pairs(words or []) for words in (camera, joint, task))
    names = renaming.Names(cameras, joints, tasks, robot_type)
    _edit(lambda _, advance: renaming.rename(dataset, names, advance), dataset)


@app.command()
def convert(
    dataset: DatasetPath,
    out: Annotated[Path, typer.Argument(help="new folder")],
    degrees: Annotated[bool, typer.Option("--degrees", help="joints are in degrees: turn them into rad")] = False,
    arm_order: Annotated[bool, typer.Option("--arm-order", help="left arm first, by the names of the joints")] = False,
    rate: Annotated[
        float | None, typer.Option("--rate", min=0.1, help="frames a second; numbers are interpolated")
    ] = None,
) -> None:
    """A new dataset with joints in rad, in the order of this rig, or at another rate; the first stays as it is."""
    from aloha_runtime.data import split_merge

    job = split_merge.convert
    _edit(
        lambda _, advance: job(dataset, out, degrees=degrees, arm_order=arm_order, rate=rate, advance=advance), dataset
    )


@app.command()
def undo(
    dataset: DatasetPath,
    forget: Annotated[bool, typer.Option("--forget", help="instead, free the disk of what is kept for undo")] = False,
) -> None:
    """As it was before the last edit; a second time brings the edit back."""
    from rich.console import Console

    from aloha_runtime.data import edit

    Console(highlight=False, soft_wrap=True).print(edit.forget(dataset) if forget else edit.undo(dataset))


def _edit(job: Callable[[ModuleType, Callable[[int], None]], str], *datasets: Path) -> None:
    """Do it with progress, and say in a line what was done."""
    from rich.console import Console

    from aloha_runtime.data import edit
    from aloha_runtime.data.layout import read_info
    from aloha_runtime.data.progress import progress

    say = Console(highlight=False, soft_wrap=True).print
    with progress("episodes", sum(read_info(dataset).total_episodes for dataset in datasets), say) as advance:
        done = job(edit, advance)
    say(done)


@app.command("import-hdf5")
def import_hdf5(
    folder: Annotated[Path, typer.Argument(help="folder of ALOHA's episode_0.hdf5, episode_1.hdf5, ...")],
    out: Annotated[Path, typer.Argument(help="LeRobot v3 dataset folder to create")],
    task: Annotated[str, typer.Option("--task", help="what the episodes show, in a few words")],
    fps: Annotated[float, typer.Option("--fps", min=1)] = 50,
    channels: Annotated[
        Literal["swapped", "rgb"] | None,
        typer.Option("--channels", help="of compressed frames: swapped as ALOHA's recorders write them, or rgb"),
    ] = None,
    base: Annotated[
        bool | None, typer.Option("--keep-base/--ignore-base", help="Mobile ALOHA's base_action as a feature")
    ] = None,
    leave_out: Annotated[
        list[str] | None,
        typer.Option("--leave-out", help="camera or other name in the files, or episode_3.hdf5; may be given again"),
    ] = None,
) -> None:
    """ALOHA HDF5 episodes as a LeRobot dataset."""
    from rich.console import Console

    from aloha_runtime.data.import_hdf5 import import_hdf5 as job

    say = Console().print
    made = job(
        folder, out, task=task, fps=fps, channel_order=channels, keep_base=base, leave_out=leave_out or [], report=say
    )
    say(f"{out}: {len(made.episodes)} episodes, {len(made)} frames, cameras {', '.join(made.cameras) or 'none'}")


@app.command("export-hdf5")
def export_hdf5(
    dataset: DatasetPath,
    out: Annotated[Path, typer.Argument(help="folder for episode_0.hdf5, episode_1.hdf5, ...")],
    channels: Annotated[
        Literal["swapped", "rgb"] | None,
        typer.Option("--compress", help="JPEG frames: swapped as ALOHA 2's recorder writes them, or rgb; else plain"),
    ] = None,
) -> None:
    """A LeRobot dataset as ALOHA HDF5 episodes; says what they cannot hold."""
    from aloha_runtime.data.export_hdf5 import export_hdf5 as job

    _edit(lambda _, advance: f"{out}: {job(dataset, out, channel_order=channels, advance=advance)}", dataset)


@app.command("import")
def import_v2(
    source: Annotated[Path, typer.Argument(help="LeRobot v2.0 or v2.1 dataset folder")],
    out: Annotated[Path, typer.Argument(help="LeRobot v3 dataset folder to create")],
    leave_out: Annotated[
        list[str] | None, typer.Option("--leave-out", help="feature to drop; may be given again")
    ] = None,
    leave_out_episode: Annotated[
        list[int] | None, typer.Option("--leave-out-episode", min=0, help="episode to drop; may be given again")
    ] = None,
) -> None:
    """A LeRobot v2.0 or v2.1 dataset as v3.0; videos are not encoded again."""
    from rich.console import Console

    from aloha_runtime.data.import_v2 import import_v2 as job

    Console(highlight=False, soft_wrap=True).print(job(source, out, leave_out or [], leave_out_episode or []))


@app.command()
def push(
    dataset: DatasetPath,
    name: Annotated[str, typer.Argument(help="user/dataset on the Hugging Face hub")],
    private: Annotated[bool, typer.Option("--private")] = False,
) -> None:
    """Upload a dataset under a name, so that LeRobot opens it by that name."""
    from rich.console import Console

    from aloha_runtime.data.hub import push as job

    Console(highlight=False, soft_wrap=True).print(job(dataset, name, private))


@app.command()
def pull(
    name: Annotated[str, typer.Argument(help="user/dataset on the Hugging Face hub")],
    dataset: Annotated[Path, typer.Argument(help="new folder")],
    revision: Annotated[str | None, typer.Option("--revision", help="branch, tag or commit")] = None,
) -> None:
    """Download a dataset by name."""
    from rich.console import Console

    from aloha_runtime.data.hub import pull as job

    Console(highlight=False, soft_wrap=True).print(job(name, dataset, revision))
