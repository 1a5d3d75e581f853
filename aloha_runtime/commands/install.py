"""`aloha install` and `aloha uninstall`: units, udev rules, limits, user and rig file of a robot PC.

Every file is known before the first is written; a manifest says what was, so that a second installation changes only
what differs and `uninstall` takes away exactly that. A file changed by somebody since is never overwritten or removed.
"""

import os
import subprocess
import sys
from collections.abc import Callable, Iterable
from pathlib import Path

from rich.console import Console

from aloha_runtime import config
from aloha_runtime.commands import install_files, install_udev
from aloha_runtime.commands.install_units import RIG, Wanted, units
from aloha_runtime.config import RigConfig
from aloha_runtime.errors import AlohaError, ConfigError
from aloha_runtime.processes.table import Job

HOMES = ("/home/", "/root/", "/run/user/")
"""What a unit with ProtectHome=yes does not see."""
SYSUSERS = """# Owner of every process of the rig; dialout: adapters of the arms, video: cameras and GPU.
u aloha - "ALOHA rig" /var/lib/aloha
m aloha dialout
m aloha video
"""
TMPFILES = """# Datasets and checkpoints of the rig that systemd runs.
d /var/lib/aloha 0755 aloha aloha -
"""
LIMITS = """# Real-time priority and locked memory for `aloha up` of the group aloha; units have their own.
@aloha - rtprio {priority}
@aloha - memlock unlimited
"""
SYSTEM = Path("/")
AFTER_INSTALL = (
    ("systemd-sysusers", "aloha.conf"),
    ("systemd-tmpfiles", "--create", "aloha.conf"),
    ("systemctl", "daemon-reload"),
    ("udevadm", "control", "--reload"),
    ("udevadm", "trigger", "--subsystem-match=tty", "--subsystem-match=video4linux", "--subsystem-match=usb"),
)
AFTER_UNINSTALL = (("systemctl", "daemon-reload"), ("udevadm", "control", "--reload"))


def wanted(job: str, checkpoint: str, dataset: str, task: str) -> Wanted:
    """What was asked for on the command line; ConfigError for an unknown job."""
    if job not in list(Job):
        raise ConfigError(f"no job named {job!r}: choose teleop or deploy")
    if checkpoint and checkpoint not in config.SHIPPED_POLICIES:
        checkpoint = str(Path(checkpoint).resolve())
    return Wanted(Job(job), checkpoint, str(Path(dataset).resolve()) if dataset else "", task)


def install(rig_name: str, wanted: Wanted, root: Path, dry_run: bool) -> None:
    """Write every file below `root`; on the running system (root /) also make the user and tell systemd and udev."""
    say = Console(highlight=False, soft_wrap=True).print
    rig = config.load(rig_name)
    refuse_unfit(wanted, rig)
    if trouble := unseen(wanted):
        if root == SYSTEM and not dry_run:
            raise ConfigError(trouble)
        say(f"note: {trouble}", markup=False)
    files = plan(rig, config.find(rig_name).read_bytes(), wanted)
    before = install_files.manifest(root)
    changes = install_files.changes(root, files, before)
    if dry_run:
        for path in dict.fromkeys([*files, *changes]):
            line = f": {_first_line(files[path])}" if path in files else ""
            say(f"{changes.get(path, 'unchanged'):9} /{path}{line}", markup=False)
        return
    _refuse_without_root(root, "install")
    install_files.write(root, files, before)
    for path, word in changes.items():
        say(f"{word:9} /{path}", markup=False)
    say(f"{len(files)} files below {root}, {len(changes)} of them new, changed or removed")
    for key in install_udev.unnamed(rig):
        say(f"no udev rule for {key}: it has no `serial` in {rig_name}; find it with `aloha setup`")
    if root == SYSTEM:
        _run_all(AFTER_INSTALL, say)
        say("now `sudo systemctl enable --now aloha.target`, then `sudo -u aloha aloha status`; nothing moves yet")


def uninstall(root: Path, dry_run: bool) -> None:
    """Take away what `install` wrote below `root`; recordings and the user stay."""
    say = Console(highlight=False, soft_wrap=True).print
    before = install_files.manifest(root)
    if not before.files:
        raise AlohaError(f"nothing is installed below {root}: there is no /{install_files.MANIFEST}")
    if not dry_run:
        _refuse_without_root(root, "uninstall")
        if root == SYSTEM:  # arms are parked by the units themselves
            _run_all((("systemctl", "disable", "--now", "aloha.target"),), say)
    for path, removed in install_files.remove(root, before, dry_run):
        say(f"{'removed' if removed else 'kept, since it was changed'}: /{path}", markup=False)
    if dry_run:
        return
    if root == SYSTEM:
        _run_all(AFTER_UNINSTALL, say)
        say("the user aloha and /var/lib/aloha (recordings) stay; remove them with `sudo userdel --remove aloha`")


def plan(rig: RigConfig, rig_file: bytes, wanted: Wanted) -> dict[str, bytes | Path]:
    """Every file by its path below the root: its content, or the target of a link."""
    written = {f"etc/systemd/system/{name}": text for name, text in units(rig, wanted).items()}
    written[f"etc/udev/rules.d/{install_udev.RULES}"] = install_udev.rules(rig)
    written["etc/security/limits.d/aloha.conf"] = LIMITS.format(priority=rig.realtime.priority or 0)
    written["etc/sysusers.d/aloha.conf"] = SYSUSERS
    written["etc/tmpfiles.d/aloha.conf"] = TMPFILES
    texts: dict[str, bytes | Path] = {path: text.encode() for path, text in written.items()}
    return {RIG.lstrip("/"): rig_file, **texts, "usr/local/bin/aloha": Path(sys.executable).with_name("aloha")}


def refuse_unfit(wanted: Wanted, rig: RigConfig) -> None:
    """ConfigError for what cannot run unattended."""
    if wanted.job in (Job.REPLAY, Job.LOOK) or (wanted.job is Job.DEMONSTRATE and rig.sim is None):
        raise ConfigError(f"--job {wanted.job} cannot run unattended: choose teleop or deploy")
    if wanted.job is Job.DEPLOY and not wanted.checkpoint:
        raise ConfigError("--job deploy needs --checkpoint, a LeRobot policy directory")
    if bool(wanted.dataset) != bool(wanted.task.strip()):
        raise ConfigError("--dataset and --task belong together: what is recorded, and where to")
    if wanted.dataset and not (Path(wanted.dataset) / "meta/info.json").is_file():
        raise ConfigError(f"--dataset {wanted.dataset} is no dataset yet: make it with `aloha record` first")


def unseen(wanted: Wanted) -> str:
    """What the units could not see because it lies in a home directory, and what to do; empty when all is well."""
    places = {"the Python environment": sys.prefix, "its Python": sys.base_prefix, "aloha_runtime": __file__}
    if wanted.checkpoint not in config.SHIPPED_POLICIES:
        places["--checkpoint"] = wanted.checkpoint
    for what, place in {**places, "--dataset": wanted.dataset}.items():
        real = f"{Path(place).resolve()}/"
        if place and real.startswith(HOMES):
            return (
                f"{what} lies in {real}, and units see no home directories: clone the runtime to /opt/aloha and make it"
                " there with the system's own Python (`sudo make -C /opt/aloha setup`), install with `sudo"
                " /opt/aloha/.venv/bin/aloha install ...`, and keep datasets and checkpoints in /var/lib/aloha"
            )
    return ""


def _first_line(content: bytes | Path) -> str:
    if isinstance(content, Path):
        return f"-> {content}"
    return content.decode(errors="replace").strip().partition("\n")[0]


def _refuse_without_root(root: Path, verb: str) -> None:
    if root == SYSTEM and os.geteuid() != 0:
        raise AlohaError(
            f"`aloha {verb}` changes the system: run it with sudo, look with --dry-run, or give --root DIR"
        )


def _run_all(commands: Iterable[tuple[str, ...]], say: Callable[[str], None]) -> None:
    """Run each; one that fails is named, with what to run by hand, and does not keep the others from running."""
    for command in commands:
        try:
            result = subprocess.run(command, capture_output=True, text=True, check=False)
            trouble = result.stderr.strip() if result.returncode else ""
        except FileNotFoundError:
            trouble = "there is no such command here"
        if trouble:
            say(f"`{' '.join(command)}` failed: {trouble}")
