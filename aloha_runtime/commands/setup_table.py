"""Where the arms and their table are, as a person measures it; the guard is on from then on."""

import math
from collections.abc import Callable
from typing import Any, TypeVar

from aloha_runtime.commands.setup_talk import Person
from aloha_runtime.config import RigConfig
from aloha_runtime.config_parts import BasePlace, GuardConfig
from aloha_runtime.control.shape import Scene
from aloha_runtime.errors import ConfigError
from aloha_runtime.robot import SIDES, Role, Side, pose_vector

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
T = TypeVar("T")
UNKNOWN, NO_TABLE = "unknown", "none"
FARTHEST_M = 3.0
"""No arm stands farther from a place on its own table."""


def ask_for_table(known: dict[str, Any], arms: dict[str, Role], rig: RigConfig, person: Person) -> dict[str, Any]:
    """`guard:` of the rig file: bases and table, `known` values or the published ones as defaults."""
    settings = GuardConfig.model_validate({"table_m": PUBLISHED_TABLE_M[rig.kit], **known})
    found = dict(known)
    person.say(f"{ASKED['follower']}. Published for {rig.kit}: {PUBLISHED}.")
    sides = [side for side in SIDES if f"follower_{side}" in arms]
    names = [f"table.follower_{side}" for side in sides]
    bases = _until_right(person, names, lambda: _followers(person, sides, settings, rig))
    found |= {f"{side}_base": bases[side] for side in sides}
    found["table_m"] = _height(person, "table.height", "top of the table above the followers' feet", settings.table_m)
    leaders = [side for side in SIDES if f"leader_{side}" in arms]
    if leaders:
        person.say(f"{ASKED['leader']}.")
        placed = settings.bases("leader")
        leader_bases = {
            side: _base(
                person,
                f"table.leader_{side}",
                f"leader_{side}: x y heading, or {UNKNOWN}",
                _said(placed[side]) if side in placed else UNKNOWN,
            )
            for side in leaders
        }
        both = len(leaders) == len(SIDES) and None not in leader_bases.values()
        for side in SIDES:
            found.pop(f"leader_{side}_base", None)
            if both:
                found[f"leader_{side}_base"] = leader_bases[side]
        question = "top of what is under the leaders above their feet"
        found["leader_table_m"] = _height(person, "table.leader_height", question, settings.leader_table_m)
    person.say("the guard is on: HOLD before the followers meet each other or the table; `aloha guard view` draws it")
    return found


def _until_right(person: Person, names: list[str], take: Callable[[], T]) -> T:
    """What `take` asks for under these names: again after a wrong answer of a person's; ConfigError else."""
    while True:
        try:
            return take()
        except ConfigError as error:
            if not any(person.types(name) for name in names):
                raise
            person.say(str(error))


def _followers(person: Person, sides: list[Side], settings: GuardConfig, rig: RigConfig) -> dict[Side, list[float]]:
    """Bases of the followers; ConfigError when both cannot take the start pose there."""
    bases: dict[Side, list[float]] = {}
    for side in sides:
        default = _said(settings.bases()[side])
        base = _base(person, f"table.follower_{side}", f"follower_{side}: x y heading", default)
        assert base is not None  # `unknown` is no answer to this question
        bases[side] = base
    places: dict[Side, BasePlace] = {side: (x, y, heading) for side, (x, y, heading) in bases.items()}
    near = Scene("follower", places, rig.grippers("follower"), None).nearest(pose_vector(rig.start_pose, 0.0))
    if near.distance_m < settings.minimum_distance_m:
        apart = f"{near.distance_m * 1000:.0f} mm apart" if near.distance_m > 0 else "inside each other"
        raise ConfigError(
            f"table.follower_left, table.follower_right: in the start pose {near.first} and {near.second} would be"
            f" {apart} (the guard keeps {settings.minimum_distance_m * 1000:.0f} mm): measure x and y of both waists"
            " from one place on the table, and where each arm points"
        )
    return bases


def _said(base: tuple[float, float, float]) -> str:
    return f"{base[0]:g} {base[1]:g} {math.degrees(base[2]):g}"


def _base(person: Person, name: str, question: str, default: str) -> list[float] | None:
    """x, y (m) and heading (rad), or None where nobody knows."""
    return _until_right(person, [name], lambda: _place(name, question, person.ask(name, question, default).strip()))


def _place(name: str, question: str, answer: str) -> list[float] | None:
    """An answer as x, y (m) and heading (rad)."""
    if answer.lower() == UNKNOWN and question.endswith(UNKNOWN):
        return None
    numbers = _numbers(name, answer, 3, "x and y in metres and the heading in degrees, such as `-0.469 0.5 0`")
    _refuse_far(name, numbers[:2], "measure from a place on the table to the middle of the waist")
    return [numbers[0], numbers[1], round(math.radians(numbers[2]), 5)]


def _height(person: Person, name: str, question: str, known: float | None) -> float | None:
    """Metres; None where there is no table."""
    default = NO_TABLE if known is None else f"{known:g}"

    def take() -> float | None:
        answer = person.ask(name, f"{question} (m, or {NO_TABLE})", default).strip()
        if answer.lower() == NO_TABLE:
            return None
        numbers = _numbers(name, answer, 1, f"metres, such as `0` or `-0.02`, or `{NO_TABLE}`")
        _refuse_far(name, numbers, "measure from the feet of the arms up to the top of the table")
        return numbers[0]

    return _until_right(person, [name], take)


def _refuse_far(name: str, lengths: list[float], measure: str) -> None:
    """ConfigError, which says what to measure, for lengths (m) that no robot has."""
    for length in lengths:
        if abs(length) > FARTHEST_M:
            raise ConfigError(
                f"{name}: {length:g} m is beyond {FARTHEST_M:g} m (in metres, not millimetres?): {measure}"
            )


def _numbers(name: str, answer: str, count: int, wanted: str) -> list[float]:
    """That many finite numbers; ConfigError, which says what is wanted, for anything else."""
    try:
        numbers = [float(word) for word in answer.replace(",", " ").split()]
    except ValueError:
        numbers = []
    if len(numbers) != count or not all(math.isfinite(number) for number in numbers):
        raise ConfigError(f"{name}: {answer!r} is not {wanted}")
    return numbers
