"""Sub-commands for the logs of the flight recorder."""

from pathlib import Path
from typing import Annotated

import typer

from aloha_runtime.cli.options import RunDir

app = typer.Typer(no_args_is_help=True, help="What happened: the last minutes before every STOP, HOLD and FAULT.")

Name = Annotated[str, typer.Argument(help="name of a log, part of it, its path, or `last`")]
Folder = Annotated[Path | None, typer.Option("--folder", help="default: where the recorder writes (see docs/logs.md)")]
Around = Annotated[
    float | None, typer.Option("--seconds", min=0.1, help="before and after the event; default 10, plot 4")
]


@app.command("list")
def list_(folder: Folder = None) -> None:
    """Every log: date, kind, mode, length, size, cause."""
    from aloha_runtime.commands.log_show import listing as job

    job(folder)


@app.command()
def show(
    name: Name = "last",
    folder: Folder = None,
    seconds: Around = None,
    everything: Annotated[bool, typer.Option("--all", help="the whole log")] = False,
) -> None:
    """A timeline: modes, causes, processes, gaps; and the joints just before the event."""
    from aloha_runtime.commands.log_show import show as job

    job(name, folder, seconds, everything)


@app.command()
def plot(
    name: Name = "last",
    out: Annotated[Path, typer.Option("--out", help="PNG to write")] = Path("outputs/log.png"),
    folder: Folder = None,
    seconds: Around = None,
    leaders: Annotated[bool, typer.Option("--leaders", help="the leader arms instead of the followers")] = False,
) -> None:
    """Target, goal and position of the fourteen joints around the event, as a picture."""
    from aloha_runtime.commands.log_plot import plot as job

    typer.echo(str(job(name, folder, out, seconds, leaders)))


@app.command("open")
def open_(
    name: Name = "last",
    out: Annotated[Path, typer.Option("--out", help=".rrd to write")] = Path("outputs/log.rrd"),
    folder: Folder = None,
    view: Annotated[bool, typer.Option("--view/--no-view", help="open the viewer as well")] = True,
) -> None:
    """The log in the Rerun viewer. Foxglove opens the .mcap file itself."""
    from aloha_runtime.commands import log_rrd
    from aloha_runtime.flight_log.reader import find
    from aloha_runtime.run_directory import default_log_dir

    path = find(folder or default_log_dir(), name)
    log_rrd.rrd(path, out)
    opened = view and log_rrd.view(out)
    typer.echo(f"{'opened' if opened else 'open it: rerun'} {out}; Foxglove opens {path} itself")


@app.command()
def save(
    cause: Annotated[str, typer.Argument(help="why, in a few words; it becomes part of the name")] = "",
    run_dir: RunDir = None,
) -> None:
    """Write the last minutes of the running system now."""
    from aloha_runtime.commands.log_show import save as job

    job(cause, run_dir)
