"""Sub-commands for policies on another machine."""

from pathlib import Path
from typing import Annotated, Literal

import typer

keys_app = typer.Typer(no_args_is_help=True, help="Keys of machines that speak with each other: remote policies.")
policy_app = typer.Typer(no_args_is_help=True, help="A policy for robots on the network.")

Folder = Annotated[Path | None, typer.Option("--keys", help="folder of the keys; default: ~/.config/aloha/keys")]


@keys_app.command("new")
def keys_new(keys: Folder = None) -> None:
    """Make this machine's key; prints the public half for the other machine."""
    from aloha_runtime.commands import keys as job

    job.new(keys)


@keys_app.command("show")
def keys_show(keys: Folder = None) -> None:
    """This machine's public key, and the machines it allows."""
    from aloha_runtime.commands import keys as job

    job.show(keys)


@keys_app.command("allow")
def keys_allow(
    key: Annotated[str, typer.Argument(help="public key, as `aloha keys show` prints it on the other machine")],
    name: Annotated[str, typer.Argument(help="a name for that machine")],
    keys: Folder = None,
) -> None:
    """Let another machine in (on a server), or trust it as a server (on a robot PC)."""
    from aloha_runtime.commands import keys as job

    job.allow(key, name, keys)


@policy_app.command("serve")
def policy_serve(
    checkpoint: Annotated[str, typer.Argument(help="LeRobot policy directory, or `demo`")],
    bind: Annotated[str, typer.Option("--bind", help="tcp://ADDRESS:PORT of this machine")],
    keys: Folder = None,
    engine: Annotated[str, typer.Option("--engine", help="as for `aloha deploy`")] = "auto",
    device: Annotated[Literal["auto", "cpu", "cuda"], typer.Option("--device", help="auto: a GPU, if any")] = "auto",
    threads: Annotated[int, typer.Option("--threads", min=1, max=64, help="CPU threads of one inference")] = 1,
) -> None:
    """Run a policy here for robot PCs whose keys are allowed; there, `aloha deploy tcp://HOST:PORT`."""
    from aloha_runtime.commands.policy_serve import serve

    serve(checkpoint, bind, keys, engine, device, threads)
