"""`aloha preflight`, and what `aloha deploy` looks at before a policy moves anything: does this checkpoint fit this
rig, as it is now? Each finding says what, the value, and what to do."""

from collections.abc import Collection, Sequence
from pathlib import Path

from rich.console import Console

from aloha_runtime import config
from aloha_runtime.act.card import directory_of
from aloha_runtime.commands import findings, preflight_checks, preflight_live, preflight_page, preflight_run
from aloha_runtime.commands.findings import Finding, Level
from aloha_runtime.commands.preflight_checks import Checkpoint
from aloha_runtime.commands.preflight_live import Running
from aloha_runtime.commands.stack import Stack
from aloha_runtime.config import RigConfig
from aloha_runtime.errors import AlohaError, CheckpointError
from aloha_runtime.processes.table import Job

PAGE = "preflight.html"


class Preflight:
    """One checkpoint on one rig: `files` before anything starts, `live` when cameras and arms run."""

    def __init__(self, name: str, rig: RigConfig, accepted: Collection[str], console: Console) -> None:
        """`name`: a shipped policy or a path. `accepted`: names of warnings that a person has judged."""
        self.name, self.rig, self._accepted, self._console = name, rig, accepted, console
        self.found: list[Finding] = []
        self._loaded: Checkpoint | None = None

    def files(self) -> None:
        """What the checkpoint's files and the rig file say."""
        self._loaded, found = preflight_checks.examine(directory_of(self.name), self.rig)
        self._add(found)
        if self._loaded is not None:
            self._add(preflight_run.examine(self._loaded, self.rig))

    def live(self, stack: Running, out: Path, at_start: bool) -> None:
        """What cameras and arms show now, and the page of it in `out`. `files` must have let the checkpoint through."""
        assert self._loaded is not None, "what cannot be read was refused before"
        cameras = [self.rig.policy.cameras.get(name, name) for name in self._loaded.config.cameras]
        seen = preflight_live.look(stack, list(dict.fromkeys(cameras)))
        found, frames = preflight_live.examine(self._loaded, seen, at_start, self.rig)
        if "policy" in stack.health:
            found += preflight_live.speed(self._loaded, stack.health["policy"].latest())
        self._add(found)
        path = out / PAGE
        text = preflight_page.page(self.name, self.rig.name, self.found, seen.pictures, frames)
        try:
            out.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
        except OSError as error:
            raise AlohaError(f"{path} cannot be written ({error.strerror}): choose another place") from None
        self._console.print(f"cameras now and in training: {path}", soft_wrap=True)

    def refuse(self, judged: bool = False) -> None:
        """Raise CheckpointError naming what stands against it; `judged`: failures only."""
        doubtful = [finding.check for finding in self.found] if judged else self._accepted
        refusal(self.name, self.found, doubtful)

    def show(self, levels: Collection[Level] = tuple(Level)) -> None:
        """Print the findings of these levels."""
        for finding in self.found:
            if finding.level in levels:
                findings.show(self._console, finding)

    def value(self, *checks: str) -> str:
        """What was found in these checks, for people."""
        found = {finding.check: finding.value for finding in self.found}
        return "; ".join(f"{check}: {found[check]}" for check in checks if check in found)

    def _add(self, found: Sequence[Finding]) -> None:
        self.found += found


def look_at_files(name: str, rig: RigConfig, console: Console) -> None:
    """What the files say of a policy that is to be compared or recorded: raises CheckpointError where it does not fit,
    and says what is doubtful where it may."""
    flight = Preflight(name, rig, (), console)
    flight.files()
    flight.show((Level.WARN,))
    flight.refuse(judged=True)


def refusal(name: str, found: Sequence[Finding], accepted: Collection[str]) -> None:
    """Raise CheckpointError for failures, which nobody can accept, and for warnings that nobody has accepted."""
    failed = [finding for finding in found if finding.level is Level.FAIL]
    doubtful = [finding for finding in found if finding.level is Level.WARN and finding.check not in accepted]
    if failed:
        final = [finding.check for finding in failed if finding.check in accepted]
        hint = f" ({', '.join(final)} cannot be accepted)" if final else ""
        raise CheckpointError(f"{name} does not fit: {_listed(failed)}{hint}")
    if doubtful:
        options = " ".join(f"--accept {finding.check}" for finding in doubtful)
        raise CheckpointError(f"{name} may not fit: {_listed(doubtful)}. If you know better: {options}")


def _listed(found: Sequence[Finding]) -> str:
    return "; ".join(f"{finding.check}: {finding.value} ({finding.fix})" for finding in found)


def preflight(
    name: str, rig_name: str, accepted: Collection[str], out: Path, json: Path | None, run_dir: Path | None
) -> None:
    """Look at everything without moving anything: cameras and arms are started, and ended again. Raises AlohaError when
    the checkpoint does not fit."""
    from aloha_runtime.commands.operate import with_task  # which deploys after a preflight

    rig = with_task(config.load(rig_name), None, None)
    console = Console(highlight=False, soft_wrap=True)
    flight = Preflight(name, rig, accepted, console)
    flight.files()
    if not any(finding.level is Level.FAIL for finding in flight.found):
        with Stack(rig, Job.LOOK, run_dir, say=console.print) as stack:
            flight.live(stack, out, at_start=False)
    flight.show()
    if json is not None:
        try:
            json.write_bytes(findings.as_json(rig.name, flight.found))
        except OSError as error:
            raise AlohaError(f"{json} cannot be written ({error.strerror}): choose another place with --json") from None
    flight.refuse()
    console.print(f"{name} fits rig {rig.name}")
