"""`aloha doctor`: everything about a rig that can be checked before anything moves, each finding with its fix."""

import contextlib
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from rich.console import Console

from aloha_runtime import config
from aloha_runtime.bus import SUPERVISOR
from aloha_runtime.commands import findings
from aloha_runtime.commands.doctor_machine import check_machine
from aloha_runtime.commands.doctor_servos import check_arm
from aloha_runtime.commands.doctor_stop import check_stop_input
from aloha_runtime.commands.doctor_usb import check_usb
from aloha_runtime.commands.findings import Finding, Level, fail, warn
from aloha_runtime.config import RigConfig
from aloha_runtime.errors import AlohaError
from aloha_runtime.robot import ROLES
from aloha_runtime.run_directory import default_run_dir, lock_holder

Confirm = Callable[[str], bool]


def doctor(
    rig_name: str,
    *,
    out: Path,
    dataset: Path | None = None,
    fix: bool = False,
    json: Path | None = None,
    run_dir: Path | None = None,
    confirm: Confirm = lambda _: False,
) -> None:
    """Check all of it; raises AlohaError when something must be mended. `run_dir`: of a simulated rig's chains that run
    already; without one they are started for the check. `out`: the sheet of pictures."""
    rig = config.load(rig_name)
    console = Console(highlight=False, soft_wrap=True)
    found = []
    with contextlib.ExitStack() as stack:
        port_of = ports(rig, run_dir, stack)
        for finding in examine(rig, port_of, out, dataset, run_dir):
            if fix and finding.level is not Level.OK:
                _mend(finding, confirm, console)
            findings.show(console, finding)
            found.append(finding)
    if json is not None:
        json.write_bytes(findings.as_json(rig.name, found))
    open_ = [finding for finding in found if finding.level is Level.FAIL and not finding.mended]
    warnings = [finding for finding in found if finding.level is Level.WARN and not finding.mended]
    console.print(f"{len(found)} checks: {len(open_)} to mend, {len(warnings)} warnings")
    if open_:
        hint = "" if fix or not any(finding.mend for finding in open_) else "; `aloha doctor --fix` mends some of it"
        raise AlohaError(f"{len(open_)} of {len(found)} checks failed{hint}")


def examine(
    rig: RigConfig, port_of: Callable[[str], str], out: Path, dataset: Path | None, run_dir: Path | None
) -> Iterator[Finding]:
    """Every finding, as it is found."""
    yield from check_machine(rig, dataset or Path.cwd())
    yield from check_usb(rig, port_of)
    if lock_holder((run_dir or default_run_dir()) / f"{SUPERVISOR}.requests.lock") is not None:
        remedy = "end the rig with `aloha down` (or `sudo systemctl stop aloha.target`), then look again"
        yield warn("rig", "it is running, so that its arms and cameras cannot be looked at", remedy)
        return
    yield from check_stop_input(rig)
    for role in ROLES:
        for side, arm in rig.arms_of(role).items():
            name = f"{role}_{side}"
            yield from check_arm(name, role, arm, port_of(name))
    yield from _cameras(rig, out, dataset)


def _cameras(rig: RigConfig, out: Path, dataset: Path | None) -> Iterator[Finding]:
    from aloha_runtime.commands import snapshots  # brings OpenCV, whose absence is a finding of its own

    pictures, found = snapshots.take(rig, list(rig.cameras))
    yield from found
    if pictures:
        snapshots.sheet(pictures, out)
        yield findings.ok("cameras.sheet", f"{out}: do the names fit the pictures?")
    if dataset is not None and pictures:
        try:
            yield from snapshots.compare(pictures, dataset)
        except AlohaError as error:
            yield fail("cameras.dataset", str(error), "name a dataset of this rig with --dataset")


def ports(rig: RigConfig, run_dir: Path | None, stack: contextlib.ExitStack) -> Callable[[str], str]:
    """Device of each arm's port. Emulated chains of a simulated rig are started (and ended with `stack`) unless they
    run in `run_dir`."""
    by_name = {str(name): arm.port for name, arm in rig.arms.items()}
    if rig.sim is None:
        return by_name.__getitem__
    if run_dir is None:
        from aloha_runtime.sim.standalone import EmulatedArm

        run_dir = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="aloha-doctor-")))
        for name in by_name:
            stack.enter_context(EmulatedArm(run_dir, name))
    folder = run_dir
    return lambda name: str(folder / by_name[name])


def _mend(finding: Finding, confirm: Confirm, console: Console) -> None:
    """Do what the fix says, if a program may."""
    if finding.mend is None:
        return
    if finding.risk and not confirm(f"{finding.check} is {finding.value}. {finding.risk}. Write it?"):
        return
    try:
        finding.mend()
        finding.mended = True
    except (AlohaError, OSError) as error:
        console.print(f"could not mend {finding.check}: {error}", markup=False)
