"""What `aloha doctor` finds: one line each, with the exact fix, as a table or as JSON."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import StrEnum

import msgspec
from rich.console import Console
from rich.markup import escape

SCHEMA = 1
"""Version of the JSON: `findings` of check, level, value, fix, mended. Keys are added, never changed."""


class Level(StrEnum):
    OK = "ok"
    WARN = "warn"
    FAIL = "fail"


@dataclass
class Finding:
    """`check`: stable dotted name (`arms.leader_left.servo_3.Homing_Offset`). `fix`: what a person types or does.

    `mend` does it, where that is safe; `risk` is what the person must agree to first, empty where nothing can go wrong.
    """

    check: str
    level: Level
    value: str
    fix: str = ""
    mend: Callable[[], None] | None = None
    risk: str = ""
    mended: bool = False


def ok(check: str, value: str) -> Finding:
    return Finding(check, Level.OK, value)


def warn(check: str, value: str, fix: str) -> Finding:
    return Finding(check, Level.WARN, value, fix)


def fail(check: str, value: str, fix: str) -> Finding:
    return Finding(check, Level.FAIL, value, fix)


def show(console: Console, finding: Finding) -> None:
    """One line, and the fix below it."""
    colour = {Level.OK: "green", Level.WARN: "yellow", Level.FAIL: "red"}[finding.level]
    word = "mended" if finding.mended else finding.level
    console.print(f"[bold {colour}]{word:6}[/] [bold]{escape(finding.check)}[/]  {escape(finding.value)}")
    if finding.fix and not finding.mended:
        console.print(f"       {escape(finding.fix)}")


def as_json(rig: str, findings: Iterable[Finding]) -> bytes:
    """All of them, for programs."""
    listed = [
        {"check": f.check, "level": f.level, "value": f.value, "fix": f.fix, "mended": f.mended} for f in findings
    ]
    good = not any(f["level"] == Level.FAIL and not f["mended"] for f in listed)
    return msgspec.json.format(
        msgspec.json.encode({"schema": SCHEMA, "rig": rig, "ok": good, "findings": listed}), indent=2
    )
