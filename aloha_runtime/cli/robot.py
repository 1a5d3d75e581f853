"""Sub-commands for the robot PC."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from aloha_runtime.cli.options import Rig, RunDir

app = typer.Typer()
guard_app = typer.Typer(no_args_is_help=True, help="How near the arms are to each other and to the table.")
app.add_typer(guard_app, name="guard")

Root = Annotated[Path, typer.Option("--root", help="install into this tree instead of the running system")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="only say what would be done")]


@app.command()
def install(
    rig: Annotated[str, typer.Option("--rig", help="rig file of this robot")],
    job: Annotated[str, typer.Option("--job", help="teleop or deploy (demonstrate: simulated rig)")] = "teleop",
    checkpoint: Annotated[str, typer.Option("--checkpoint", help="policy of a deploy job")] = "",
    dataset: Annotated[str, typer.Option("--dataset", help="record all motion into this dataset")] = "",
    task: Annotated[str, typer.Option("--task", help="... and what it shows, in a few words")] = "",
    root: Root = Path("/"),
    dry_run: DryRun = False,
) -> None:
    """Units, udev rules, limits and user of a robot PC, so that systemd runs the rig. Nothing moves by itself."""
    from aloha_runtime.commands import install as command

    command.install(rig, command.wanted(job, checkpoint, dataset, task), root, dry_run)


@app.command()
def uninstall(root: Root = Path("/"), dry_run: DryRun = False) -> None:
    """Take away exactly what `install` wrote; recordings stay."""
    from aloha_runtime.commands import install as command

    command.uninstall(root, dry_run)


@app.command()
def doctor(
    rig: Rig = "sim",
    fix: Annotated[bool, typer.Option("--fix", help="fix what is safe; asks before it writes joint limits")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="... and do not ask")] = False,
    dataset: Annotated[
        Path | None, typer.Option("--dataset", help="compare the cameras with this dataset's, look at its disk")
    ] = None,
    out: Annotated[Path, typer.Option("--out", help="PNG of all cameras")] = Path("outputs/doctor/cameras.png"),
    json: Annotated[Path | None, typer.Option("--json", help="also write the findings to this file")] = None,
    run_dir: RunDir = None,
) -> None:
    """Servos, USB, cameras, real-time rights, disk, clock: each finding with its exact fix. Nothing moves."""
    from aloha_runtime.commands.doctor import doctor as job

    def confirm(question: str) -> bool:
        return yes or typer.confirm(question)

    job(rig, out=out, dataset=dataset, fix=fix, json=json, run_dir=run_dir, confirm=confirm)


@app.command()
def setup(
    out: Annotated[Path, typer.Option("--out", help="rig file to write")] = Path("my_rig.yaml"),
    rig: Annotated[
        str, typer.Option("--rig", help="kit (aloha, aloha2, sim), or a rig file to redo steps of")
    ] = "aloha",
    only: Annotated[
        list[str] | None, typer.Option("--only", help="ports, servos, grippers, zero, table or cameras")
    ] = None,
    answers: Annotated[Path | None, typer.Option("--answers", help="YAML file of answers, to run unattended")] = None,
    yes: Annotated[bool, typer.Option("--yes", help="take every default; what hands must do is done")] = False,
    run_dir: RunDir = None,
) -> None:
    """From a new robot to its rig file: ports by plugging, servos, grippers, zero, table, cameras. Nothing moves."""
    from aloha_runtime.commands import setup as command
    from aloha_runtime.commands.setup_talk import Person, read_answers

    person = Person(read_answers(answers) if answers is not None else None, yes)
    command.setup(rig, out, only or command.USUAL, person, run_dir)


@guard_app.command("view")
def guard_view(
    rig: Annotated[str | None, typer.Option("--rig", help="with --pose or --angles: whose; default: aloha")] = None,
    role: Annotated[Literal["follower", "leader"], typer.Option("--role", help="which pair of arms")] = "follower",
    pose: Annotated[Literal["start", "sleep"] | None, typer.Option("--pose", help="a pose of the rig file")] = None,
    angles: Annotated[
        str | None, typer.Option("--angles", help="6 angles (rad) for both arms or 12, left first, in quotes")
    ] = None,
    out: Annotated[Path, typer.Option("--out", help="PNG to write")] = Path("outputs/guard/view.png"),
    follow: Annotated[
        bool, typer.Option("--follow", help="draw it again until Ctrl-C, with a page that shows it")
    ] = False,
    run_dir: RunDir = None,
) -> None:
    """Draw the arms as the guard sees them: of the running rig, of a pose or of angles. Nothing moves."""
    from aloha_runtime.commands.guard_view import view

    view(rig, role, pose, angles, out, follow, run_dir)
