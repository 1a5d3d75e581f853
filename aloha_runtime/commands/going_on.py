"""What an operator is told when the arms have stopped by themselves, or a rig was killed: how to go on, as a line to
type."""

import shlex
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from aloha_runtime import config
from aloha_runtime.bus import SUPERVISOR
from aloha_runtime.errors import AlohaError, ConfigError, ShutDown
from aloha_runtime.messages import Mode, ModeHeartbeat
from aloha_runtime.run_directory import RIG_FILE, RUN_LOCK, default_run_dir, lock_holder

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


def _option(run_dir: Path) -> str:
    return "" if run_dir == default_run_dir() else f" --run-dir {shlex.quote(str(run_dir))}"


def refuse_killed(run_dir: Path) -> None:
    """AlohaError that says what is true when the rig in this directory was killed: its file is left, its owner gone."""
    heard = (RUN_LOCK, f"{SUPERVISOR}.requests.lock")  # a supervisor that lives is asked, however it was started
    if not (run_dir / RIG_FILE).is_file() or any(lock_holder(run_dir / name) is not None for name in heard):
        return
    option = _option(run_dir)
    living = {lock.stem: pid for lock in sorted(run_dir.glob("*.lock")) if (pid := lock_holder(lock)) is not None}
    if living:
        there = ", ".join(f"{name} (pid {pid})" for name, pid in list(living.items())[:5])
        raise AlohaError(
            f"the rig in {run_dir} was killed, and {there} still end: look again in a few seconds; what is left then,"
            " end with `kill` and its pid"
        )
    with suppress(ConfigError):
        rig = config.load(str(run_dir / RIG_FILE))
        if rig.sim is not None:
            raise AlohaError(
                f"nothing runs in {run_dir} any more: rig {rig.name} was killed, and its simulated arms ended with it;"
                f" `aloha up{option}` restarts it"
            )
    raise AlohaError(
        f"nothing runs in {run_dir} any more: the rig was killed and could not park its arms. Servos that had torque"
        f" have it still, and hold where they stand. To go on: `aloha up{option}` with the same --rig takes them over"
        f" as they stand, then `aloha arm{option}` and `aloha park{option}` park them; or hold the arms, and cut their"
        " power"
    )


def advice(heartbeat: ModeHeartbeat, processes: Sequence[str], run_dir: Path) -> str:
    """Mode and cause of arms that stopped under a command that goes on, and what to type in another terminal."""
    option = _option(run_dir)
    first = "when its cause is gone: " if heartbeat.mode is Mode.FAULT else "to go on: "
    driver = next((name for name in ("policy", "replay") if name in processes), "")
    then = f", then `aloha start {driver}{option}`" if driver else ""
    then = ", then squeeze both leader grippers" if not then and "teleop" in processes else then
    return (
        f"{heartbeat.mode.upper()}: {heartbeat.cause}\n{first}`aloha arm{option}` in another terminal{then};"
        " Ctrl-C here parks the arms and ends"
    )
