"""systemd units of a rig, derived from the table of processes: one target, one unit (or template) a module."""

import re
import sys
from dataclasses import dataclass
from pathlib import Path
from string import Template

from aloha_runtime.config import RigConfig
from aloha_runtime.errors import ConfigError
from aloha_runtime.processes.table import Job, Process, processes
from aloha_runtime.run_directory import SYSTEM_LOG_DIR, SYSTEM_RUN_DIR

TEMPLATES = Path(__file__).resolve().parents[1] / "systemd"
RIG = "/etc/aloha/rig.yaml"
SIMULATED = ("world", "chain", "demonstrator")
SUPERVISOR = "supervisor"


@dataclass(frozen=True)
class Wanted:
    """What the installed rig is for. `checkpoint`: of a deploy job; `dataset`, `task`: record all motion into it."""

    job: Job = Job.TELEOP
    checkpoint: str = ""
    dataset: str = ""
    task: str = ""

    def table(self, rig: RigConfig) -> list[Process]:
        """The processes to install."""
        recording: tuple[str, ...] = ()
        if self.dataset:
            recording = ("--dataset", self.dataset, "--task", self.task, "--continuous", "save")
        return processes(rig, self.job, self.checkpoint, recording=recording)


def units(rig: RigConfig, wanted: Wanted) -> dict[str, str]:
    """Every unit file by name."""
    table = wanted.table(rig)
    found = {unit_file(process.name): _unit(rig, wanted, process, table) for process in table}
    names = " ".join(unit_name(process.name) for process in table)
    target = _template("aloha.target").substitute(rig=_plain(rig.name), job=wanted.job, units=names)
    return {"aloha.target": target, "aloha-off.target": _template("aloha-off.target").substitute(), **found}


def unit_name(process: str) -> str:
    """`arms@followers` is `aloha-arms@followers.service`."""
    return f"aloha-{process}.service"


def unit_file(process: str) -> str:
    """Its file: instances of one module share a template, `aloha-arms@.service`."""
    module, at, _ = process.partition("@")
    return f"aloha-{module}{at}.service"


def _unit(rig: RigConfig, wanted: Wanted, process: Process, table: list[Process]) -> str:
    module, at, _ = process.name.partition("@")
    executable = [sys.executable, "-I", "-X", "faulthandler", "-m"]
    words = [*executable, process.module, process.name, "--rig", RIG, "--run-dir", str(SYSTEM_RUN_DIR)]
    words += ["--stage", str(process.stage), *process.arguments]
    command = " ".join(_quoted(word) for word in words)
    values = {
        "name": f"{module}@%i" if at else module,
        "order": _order(process, table),
        "command": command.replace(process.name, f"{module}@%i") if at else command,
        "priority": str(rig.realtime.priority or 0),
        "cores": _cores(rig, module),
        "aloha": " ".join(_quoted(word) for word in [sys.executable, "-I", "-m", "aloha_runtime.cli"]),
        "dataset": _quoted(wanted.dataset),
        "logs": _quoted((rig.flight and rig.flight.folder) or str(SYSTEM_LOG_DIR)),
        "port": str(rig.metrics_port),
    }
    parts = ["process.service", *fragments(rig, module)]
    return "\n".join(_template(part).substitute(values) for part in parts)


def fragments(rig: RigConfig, module: str) -> list[str]:
    """What loosens the sandbox of one module on this rig."""
    wanted = [f"{module}.conf"]
    if module == "camera":
        kinds = {camera.type for camera in rig.cameras.values()} - {"sim"}
        wanted = [f"camera-{kind}.conf" for kind in sorted(kinds)]
        if any("://" in (camera.device or "") for camera in rig.cameras.values()):
            wanted.append("network.conf")
    if module == SUPERVISOR and rig.stop_input is not None:
        wanted.append("supervisor-key.conf" if rig.stop_input.device is not None else "supervisor-line.conf")
    if rig.sim is not None and module in (*SIMULATED, "camera"):
        wanted.append("simulated.conf")
    return [part for part in wanted if (TEMPLATES / part).is_file()]


def _order(process: Process, table: list[Process]) -> str:
    """The supervisor comes last, so that stopping begins with it, which parks the arms; a port before its driver."""
    others = [other for other in table if other.name != process.name]
    last = process.name == SUPERVISOR
    before = [other for other in others if last or other.stage < process.stage]
    lines = [f"After={' '.join(unit_name(other.name) for other in before)}"] if before else []
    return "\n".join([*lines, "OnSuccess=aloha-off.target"] if last else lines)


def _cores(rig: RigConfig, module: str) -> str:
    cores = {"arms": rig.realtime.arms_cores, "policy": rig.realtime.policy_cores}.get(module, [])
    return f"CPUAffinity={' '.join(map(str, cores))}\n" if cores else ""


def _template(name: str) -> Template:
    return Template((TEMPLATES / name).read_text())


def _plain(text: str) -> str:
    """A rig's name as a description: nothing that systemd would read as anything else."""
    return re.sub(r"[^\w .-]", "_", text)


def _quoted(word: str) -> str:
    """One word of a command line (man 5 systemd.service, systemd.unit); ConfigError for what no unit can hold."""
    if any(ord(character) < 32 for character in word):
        raise ConfigError(f"{word!r} has control characters, which a systemd unit cannot hold: choose another")
    word = word.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%").replace("$", "$$")
    return word if re.fullmatch(r"[\w./@:=+,-]+", word) else f'"{word}"'
