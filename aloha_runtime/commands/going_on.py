"""What an operator is told when the arms have stopped by themselves: how to go on, as a line to type."""

import shlex
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from aloha_runtime.errors import AlohaError, ShutDown
from aloha_runtime.messages import Mode, ModeHeartbeat
from aloha_runtime.run_directory import default_run_dir

RESUME, EPISODES = "--resume", "--episodes"


def again(episodes: int | None = None, argv: Sequence[str] | None = None, resumes: bool = True) -> str:
    """The command line that was given, as one that goes on. `episodes`: so many are left; `resumes`: with --resume."""
    words = list(sys.argv[1:] if argv is None else argv)
    if resumes and RESUME not in words:
        words.append(RESUME)
    if episodes is not None:
        kept, after = [], ""
        for word in words:
            if EPISODES not in (word, after, word.partition("=")[0]):
                kept.append(word)
            after = word
        words = [*kept, EPISODES, str(episodes)]
    return shlex.join(["aloha", *words])


@contextmanager
def told(how: Callable[[], str]) -> Iterator[None]:
    """An error that ends what is inside says, behind its cause, how to go on."""
    try:
        yield
    except ShutDown:
        raise
    except AlohaError as error:
        error.args = (f"{error}\n{how()}",)
        raise


def advice(heartbeat: ModeHeartbeat, processes: Sequence[str], run_dir: Path) -> str:
    """Mode and cause of arms that stopped under a command that goes on, and what to type in another terminal."""
    option = "" if run_dir == default_run_dir() else f" --run-dir {shlex.quote(str(run_dir))}"
    first = "when its cause is gone: " if heartbeat.mode is Mode.FAULT else "to go on: "
    driver = next((name for name in ("policy", "replay") if name in processes), "")
    then = f", then `aloha start {driver}{option}`" if driver else ""
    then = ", then squeeze both leader grippers" if not then and "teleop" in processes else then
    return (
        f"{heartbeat.mode.upper()}: {heartbeat.cause}\n{first}`aloha arm{option}` in another terminal{then};"
        " Ctrl-C here parks the arms and ends"
    )
