"""The `aloha` command: sub-commands only; every job's code is in `commands/`."""

import sys

import typer

from aloha_runtime.cli import bench, datasets, learn, logs, network, operate, robot, tools
from aloha_runtime.commands import interrupts
from aloha_runtime.errors import AlohaError

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, help=__doc__)
for commands in (operate, learn, robot, tools):
    app.add_typer(commands.app)
app.add_typer(bench.app, name="bench")
app.add_typer(datasets.app, name="dataset")
app.add_typer(logs.app, name="log")
app.add_typer(network.keys_app, name="keys")
app.add_typer(network.policy_app, name="policy")


def main() -> None:
    """Entry point: an AlohaError is one message and its exit code, an error of the operating system one message; Ctrl-C
    is 130."""
    interrupts.remember()
    try:
        app()
    except AlohaError as error:
        print(f"aloha: {error}", file=sys.stderr)  # noqa: T201 — the one place that speaks to the terminal for all commands
        sys.exit(error.exit_code)
    except OSError as error:  # a full disk, a folder that may not be written
        print(f"aloha: {error}", file=sys.stderr)  # noqa: T201
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)
