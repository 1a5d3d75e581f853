"""`aloha setup`: from a new robot to its rig file, step by step; nothing moves, and every write is asked for."""

import contextlib
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from aloha_runtime import config, durable
from aloha_runtime.commands import setup_calibrate, setup_cameras, setup_ports, setup_servos, setup_table
from aloha_runtime.commands.setup_ports import Adapters
from aloha_runtime.commands.setup_talk import Person
from aloha_runtime.config import RigConfig
from aloha_runtime.errors import ConfigError
from aloha_runtime.hardware.dynamixel_sdk_port import ServoAccess
from aloha_runtime.robot import KITS, ROLES, Role

STEPS = ("ports", "servos", "grippers", "zero", "table", "cameras")
USUAL = ("ports", "servos", "grippers", "table", "cameras")
"""Kits are delivered with their zero set."""
HEADER = (
    "# Written by `aloha setup` from {base}. configs/aloha.yaml explains every key; `aloha config check` checks this.\n"
)


@dataclass
class Robot:
    """What the steps work on: the rig file as it grows, and where its adapters are found."""

    base: str
    rig: RigConfig
    data: dict[str, Any]
    adapters: Adapters
    person: Person
    ports: dict[str, str]
    """Key of the adapter of each arm."""

    @property
    def arms(self) -> dict[str, Role]:
        """Every arm and its role, leaders first."""
        return {f"{role}_{side}": role for role in ROLES for side in self.rig.arms_of(role)}

    def path(self, arm: str) -> str:
        """Device of an arm's adapter now."""
        return self.adapters()[self.ports[arm]].path


def setup(base: str, out: Path, steps: Sequence[str], person: Person, run_dir: Path | None = None) -> None:
    """Go through the steps and write the rig file `out`. `base`: kit (aloha, aloha2, sim) or a rig file to redo steps
    of. `run_dir`: of emulated chains on the simulated rig; without one it is a rehearsal on arms of its own."""
    if unknown := [step for step in steps if step not in STEPS]:
        raise ConfigError(f"no step named {', '.join(unknown)}: choose among {', '.join(STEPS)}")
    rig = config.load(base)
    refuse_to_overwrite(base, out, person)
    with contextlib.ExitStack() as stack:
        adapters: Adapters = setup_ports.real_adapters
        if rig.sim is not None:
            adapters = _emulated(rig, run_dir, person, stack)
        robot = Robot(base, rig, yaml.safe_load(config.find(base).read_text()), adapters, person, {})
        _work(robot, steps)
    if unused := person.unused():
        raise ConfigError(
            f"nothing asked for {', '.join(unused)}: correct or remove these answers; nothing was written"
        )
    write(robot.data, base, out)
    person.say(f"\nwrote {out}; now `aloha doctor --rig {out}`, then `sudo aloha install --rig {out}`")


def _emulated(rig: RigConfig, run_dir: Path | None, person: Person, stack: contextlib.ExitStack) -> Adapters:
    """The adapters of a simulated rig; without `run_dir` of arms that live as long as `stack`."""
    folder = run_dir
    if folder is None:
        from aloha_runtime.commands.setup_rehearsal import rehearsal

        folder, person.hands = stack.enter_context(rehearsal(rig))
        person.say("a rehearsal: the arms are emulated, and what you are asked to do by hand is done for you")
    there = folder
    return lambda: setup_ports.emulated_adapters(there)


def _work(robot: Robot, steps: Sequence[str]) -> None:
    """The steps that were asked for, in their order."""
    robot.ports = _ports_of(robot, "ports" in steps)
    work: dict[str, Callable[[Robot], None]] = {
        "servos": _servos,
        "grippers": _grippers,
        "zero": _zero,
        "table": _table,
        "cameras": _cameras,
    }
    for step in STEPS[1:]:
        if step in steps:
            robot.person.say(f"\n== {step}")
            work[step](robot)


def refuse_to_overwrite(base: str, out: Path, person: Person) -> None:
    """ConfigError unless `out` is new, is the file whose steps are redone, or a person agrees."""
    if not out.exists() or (base.endswith((".yaml", ".yml")) and out.resolve() == Path(base).resolve()):
        return
    if not person.agrees("overwrite", f"{out} is there already; replace it?", default=False):
        raise ConfigError(f"{out} is there already: choose another --out, or redo steps of it with --rig {out}")


def _ports_of(robot: Robot, find: bool) -> dict[str, str]:
    """Adapter of each arm: found by plugging, or as the rig file has it."""
    if find:
        robot.person.say("== ports")
        found = setup_ports.find_ports(list(robot.arms), robot.adapters, robot.person)
        there = robot.adapters()
        for arm, key in found.items():
            entry = robot.data["arms"][arm]
            if robot.rig.sim is not None:
                entry["port"] = key
            elif there[key].serial:
                entry |= {"port": f"/dev/ttyDXL_{arm}", "serial": there[key].serial}
            else:
                entry["port"] = there[key].path
        return found
    by_file = {arm: (settings.serial, settings.port) for arm, settings in robot.rig.arms.items()}
    there = robot.adapters()
    return {
        str(arm): next((key for key, adapter in there.items() if key in names or adapter.path in names), names[1])
        for arm, names in by_file.items()
    }


def _servos(robot: Robot) -> None:
    for arm, role in robot.arms.items():
        settings = robot.rig.arms[arm]  # type: ignore[index]
        setup_servos.set_up_servos(arm, role, settings, robot.path(arm), robot.person)


def _grippers(robot: Robot) -> None:
    for arm, role in robot.arms.items():
        with _servos_of(robot, arm, role) as access:
            opened, closed = setup_calibrate.measure_gripper(access, role, robot.person)
        kit = KITS[robot.rig.kit].gripper(role)
        robot.data["arms"][arm]["gripper"] = setup_calibrate.gripper_range(opened, closed, kit)


def _zero(robot: Robot) -> None:
    for arm, role in robot.arms.items():
        with _servos_of(robot, arm, role) as access:
            offsets = setup_calibrate.set_zero(access, role, robot.person)
        entry = robot.data["arms"][arm]
        entry.pop("homing_offsets", None)
        if offsets:
            entry["homing_offsets"] = offsets


def _table(robot: Robot) -> None:
    known = robot.data.get("guard") or {}
    robot.data["guard"] = setup_table.ask_for_table(known, robot.arms, robot.rig, robot.person)


def _servos_of(robot: Robot, arm: str, role: Role) -> contextlib.AbstractContextManager[ServoAccess]:
    baud = robot.rig.arms[arm].baud  # type: ignore[index]
    return setup_calibrate.servos_of(arm, role, robot.path(arm), baud)


def _cameras(robot: Robot) -> None:
    if robot.rig.sim is not None:
        robot.person.say("the simulated cameras stay as they are")
        return
    sheet = Path("outputs/setup/cameras.png")
    if chosen := setup_cameras.name_cameras(setup_cameras.present(), sheet, robot.person):
        robot.data["cameras"] = chosen
        known = robot.data.get("policy", {}).get("cameras", {})
        robot.data.setdefault("policy", {})["cameras"] = {k: v for k, v in known.items() if v in chosen}


def write(data: dict[str, Any], base: str, out: Path) -> None:
    """The rig file, checked before it takes its place. Raises ConfigError."""
    aside = out.with_name(f".{out.stem}.new.yaml")
    durable.make_directory(out.parent.absolute())
    name = re.sub(r"[^\w .+()-]", "_", out.stem).strip()[:64] or "rig"
    text = yaml.safe_dump({**data, "name": name}, sort_keys=False, allow_unicode=True, width=120)
    aside.write_text(HEADER.format(base=base) + text)
    try:
        config.load(str(aside))
        durable.publish(aside, out)
    finally:
        aside.unlink(missing_ok=True)
