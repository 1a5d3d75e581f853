"""Where the arms and their table are, as a person measures it; the guard is on from then on."""

import math
from typing import Any

from aloha_runtime.commands.setup_talk import Person
from aloha_runtime.config_parts import GuardConfig
from aloha_runtime.errors import ConfigError
from aloha_runtime.robot import SIDES, Role

ASKED = {
    "follower": (
        "Where the followers stand, seen from the side of the operator: x to the right, y away from them, both from one"
        " place of your choice on the table, in metres, to the middle of the waist; the heading is where the arm points"
        " with its waist at zero, in degrees, 0 along x, 90 along y"
    ),
    "leader": (
        "Where the leaders stand, in the same way. Nothing is published; with `unknown` each leader is kept clear of"
        " its table only"
    ),
}
PUBLISHED = (
    "0.938 m apart, face to face: aloha.xml of MuJoCo Menagerie for ALOHA 2, vx300s_left.xml and vx300s_right.xml of"
    " gym-aloha for the original"
)
PUBLISHED_TABLE_M = {"aloha": 0.0, "aloha2": -0.021}
"""Of the same files: the bases of ALOHA 2 stand on rails, 21 mm above the table."""
UNKNOWN, NO_TABLE = "unknown", "none"


def ask_for_table(known: dict[str, Any], arms: dict[str, Role], kit: str, person: Person) -> dict[str, Any]:
    """`guard:` of the rig file: bases and table, `known` values or the published ones as defaults."""
    settings = GuardConfig.model_validate({"table_m": PUBLISHED_TABLE_M[kit], **known})
    found = dict(known)
    person.say(f"{ASKED['follower']}. Published for {kit}: {PUBLISHED}.")
    for side in (side for side in SIDES if f"follower_{side}" in arms):
        default = _said(settings.bases()[side])
        found[f"{side}_base"] = _base(person, f"table.follower_{side}", f"follower_{side}: x y heading", default)
    found["table_m"] = _height(person, "table.height", "top of the table above the followers' feet", settings.table_m)
    leaders = [side for side in SIDES if f"leader_{side}" in arms]
    if leaders:
        person.say(f"{ASKED['leader']}.")
        placed = settings.bases("leader")
        bases = {
            side: _base(
                person,
                f"table.leader_{side}",
                f"leader_{side}: x y heading, or {UNKNOWN}",
                _said(placed[side]) if side in placed else UNKNOWN,
            )
            for side in leaders
        }
        both = len(leaders) == len(SIDES) and None not in bases.values()
        for side in SIDES:
            found.pop(f"leader_{side}_base", None)
            if both:
                found[f"leader_{side}_base"] = bases[side]
        question = "top of what is under the leaders above their feet"
        found["leader_table_m"] = _height(person, "table.leader_height", question, settings.leader_table_m)
    person.say("the guard is on: HOLD before the followers meet each other or the table; `aloha guard view` draws it")
    return found


def _said(base: tuple[float, float, float]) -> str:
    return f"{base[0]:g} {base[1]:g} {math.degrees(base[2]):g}"


def _base(person: Person, name: str, question: str, default: str) -> list[float] | None:
    """x, y (m) and heading (rad), or None where nobody knows."""
    answer = person.ask(name, question, default).strip()
    if answer.lower() == UNKNOWN and question.endswith(UNKNOWN):
        return None
    numbers = _numbers(name, answer, 3, "x and y in metres and the heading in degrees, such as `-0.469 0.5 0`")
    return [numbers[0], numbers[1], round(math.radians(numbers[2]), 5)]


def _height(person: Person, name: str, question: str, known: float | None) -> float | None:
    """Metres; None where there is no table."""
    default = NO_TABLE if known is None else f"{known:g}"
    answer = person.ask(name, f"{question} (m, or {NO_TABLE})", default).strip()
    if answer.lower() == NO_TABLE:
        return None
    return _numbers(name, answer, 1, f"metres, such as `0` or `-0.02`, or `{NO_TABLE}`")[0]


def _numbers(name: str, answer: str, count: int, wanted: str) -> list[float]:
    """That many finite numbers; ConfigError, which says what is wanted, for anything else."""
    try:
        numbers = [float(word) for word in answer.replace(",", " ").split()]
    except ValueError:
        numbers = []
    if len(numbers) != count or not all(math.isfinite(number) for number in numbers):
        raise ConfigError(f"{name}: {answer!r} is not {wanted}")
    return numbers
