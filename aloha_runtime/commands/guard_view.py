"""`aloha guard view`: the arms as the guard and the ramps take them, from the front, from the right and from above.

A PNG of the running rig, or of a pose or angles without one. The guard's nearest pair is marked; fingers are drawn, and
do not count for the guard. Over ssh: copy the file, or run `python -m http.server` in its folder.
"""

import math
import stat
import time
from contextlib import suppress
from pathlib import Path

import matplotlib
import numpy as np
import typer
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Polygon

from aloha_runtime import config, durable, messages
from aloha_runtime.bus import Bus, Subscriber
from aloha_runtime.commands.report_plots import STYLE
from aloha_runtime.config import RigConfig
from aloha_runtime.config_parts import GuardConfig
from aloha_runtime.control.shape import Array, Scene, scene_of
from aloha_runtime.errors import ConfigError, TransportError
from aloha_runtime.messages import ArmsState
from aloha_runtime.realtime import WallClock
from aloha_runtime.robot import ARM_JOINTS, Role, Vector, pose_vector
from aloha_runtime.run_directory import RIG_FILE, default_run_dir

COLOURS = {"left": "#2563eb", "right": "#f59e0b"}
NEAR, TABLE = "#dc2626", "#9ca3af"
FIRST_S = 2.0
"""A running rig says where its arms are 200 times a second."""
REDRAW_S = 0.5
VIEWS = (("from the front", 0, 2), ("from the right", 1, 2), ("from above", 0, 1))
"""Title, and which of x, y, z go to the right and up."""
AXES = ("x (m)", "y (m)", "z (m)")
ACROSS_M, UP_M = 1.8, (-0.2, 0.8)
"""What the views show: both arms of a published kit, stretched out."""
PAGE = """<!doctype html><meta charset="utf-8"><meta http-equiv="refresh" content="1"><title>aloha guard view</title>
<img src="{picture}" alt="the arms as the guard sees them" style="max-width: 100%">
"""


def view(
    rig: str | None, role: Role, pose: str | None, angles: str | None, out: Path, follow: bool, run_dir: Path | None
) -> None:
    """Draw the arms of a role once, or with `follow` until Ctrl-C. Raises ConfigError or TransportError."""
    if pose is not None and angles is not None:
        raise ConfigError(f"--pose {pose} and --angles {angles!r}: give one of them")
    if follow and (pose is not None or angles is not None):
        raise ConfigError("--follow draws the running rig: leave it out, or leave out --pose and --angles")
    _refuse_to_replace(out, follow)
    durable.make_directory(out.parent.absolute())
    if pose is not None or angles is not None:
        settings = config.load(rig or "aloha")
        position = _given(settings, role, pose, angles)
        print_and_draw(scene_of(settings, role), position, _minimum_m(settings), out)
        return
    run_dir = run_dir or default_run_dir()
    if not (run_dir / RIG_FILE).is_file():
        raise TransportError(f"nothing runs in {run_dir}: start the rig with `aloha up`, or give --pose or --angles")
    settings = config.load(str(run_dir / RIG_FILE))
    scene, topic = scene_of(settings, role), messages.FOLLOWERS if role == "follower" else messages.LEADERS
    with suppress(KeyboardInterrupt), Bus(run_dir, WallClock()) as bus:
        states = bus.subscribe(topic)
        if follow:
            out.with_suffix(".html").write_text(PAGE.format(picture=out.name))
            typer.echo(f"{out.with_suffix('.html')} shows it in a browser, and reloads every second; Ctrl-C ends this")
        while True:
            print_and_draw(scene, _heard(states, role), _minimum_m(settings), out)
            if not follow:
                return
            time.sleep(REDRAW_S)


def _refuse_to_replace(out: Path, follow: bool) -> None:
    """ConfigError unless `out` is a PNG, and everything that is written for it is new or a regular file."""
    if out.suffix != ".png":
        raise ConfigError(f"--out {out}: give the path of a picture, which ends in .png")
    for path in (out, _aside(out), *([out.with_suffix(".html")] if follow else [])):
        try:
            mode = path.lstat().st_mode
        except FileNotFoundError:
            continue
        if not stat.S_ISREG(mode):
            raise ConfigError(
                f"--out {out}: {path} is a link, a device or a folder, and is not replaced: give the path of a new"
                " .png, or of one to replace"
            )


def _aside(out: Path) -> Path:
    """Where a picture is written before it takes its place."""
    return out.with_name(f".{out.stem}.new.png")


def _minimum_m(rig: RigConfig) -> float:
    return (rig.guard or GuardConfig()).minimum_distance_m


def _given(rig: RigConfig, role: Role, pose: str | None, angles: str | None) -> Vector:
    """Joints (14,) of a pose by name, or of 6 (both arms) or 12 angles."""
    if pose is not None:
        return pose_vector(rig.start_pose if pose == "start" else rig.sleep_pose(role), 0.0)
    try:
        numbers = [float(word) for word in str(angles).replace(",", " ").split()]
    except ValueError:
        numbers = []
    joints = len(ARM_JOINTS)
    if len(numbers) not in (joints, 2 * joints) or not all(math.isfinite(number) for number in numbers):
        raise ConfigError(f"--angles {angles!r}: give {joints} angles (rad) for both arms, or {2 * joints}, left first")
    left, right = numbers[:joints], numbers[-joints:]
    return np.array([*left, 0.0, *right, 0.0])


def _heard(states: Subscriber, role: Role) -> Vector:
    """Where the arms of a running rig are now. Raises TransportError when they do not say."""
    end = time.monotonic() + FIRST_S
    while time.monotonic() < end:
        said: list[ArmsState] = states.drain()
        if said:
            return np.array(said[-1].position)
        time.sleep(0.02)
    raise TransportError(f"the {role}s have not said where they are for {FIRST_S:g} s: see `aloha status`")


def print_and_draw(scene: Scene, position: Vector, minimum_m: float, out: Path) -> None:
    """The nearest pair as a line of text, and the picture, which takes the place of the last one as a whole."""
    near = scene.nearest(position)
    said = f"{near.first} and {near.second}: {near.distance_m * 1000:.0f} mm" if near.first else "nothing within 0.5 m"
    typer.echo(f"{out}: {said} (the guard keeps {minimum_m * 1000:.0f} mm)")
    aside = _aside(out)
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(16, 5), dpi=90, layout="constrained")
        for panel, (title, across, up) in zip(figure.subplots(1, len(VIEWS)), VIEWS, strict=True):
            _draw(panel, scene, position, across, up)
            panel.set(title=title, xlabel=AXES[across], ylabel=AXES[up], aspect="equal")
            panel.set(xlim=_span(scene, across), ylim=_span(scene, up))
        colour = NEAR if near.distance_m < minimum_m else "#1f2937"
        figure.suptitle(f"nearest: {said}", color=colour, fontsize=12)
        try:
            figure.savefig(aside)
            aside.replace(out)
        finally:
            aside.unlink(missing_ok=True)


def _draw(panel: Axes, scene: Scene, position: Vector, across: int, up: int) -> None:
    """One view of everything."""
    axes = [across, up]
    for side in scene.sides:
        corners = scene.base_corners(side)[:, axes]
        low, high = corners.min(axis=0), corners.max(axis=0)
        flat = [low, (high[0], low[1]), high, (low[0], high[1])]
        panel.add_patch(Polygon(corners[:4] if up == 1 else flat, color=COLOURS[side], alpha=0.25, linewidth=0))
        panel.annotate(side, (corners[:, 0].mean(), low[1]), (0, -4), textcoords="offset points", ha="center", va="top")
    for side, part in scene.parts(position):
        start, end = np.array(part.start)[axes], np.array(part.end)[axes]
        outline = _outline(start, end, part.radius)
        panel.add_patch(Polygon(outline, facecolor=COLOURS[side], edgecolor="white", alpha=0.6))
    if up == 2 and scene.table_m is not None:
        panel.axhline(scene.table_m, color=TABLE, linewidth=3)
    between = nearest_points(scene, position)
    if between is not None:
        panel.plot(between[:, across], between[:, up], color=NEAR, marker="o", markersize=4, linewidth=2, zorder=5)


def _span(scene: Scene, axis: int) -> tuple[float, float]:
    """What a view shows along an axis, the same for every pose, so that pictures can be compared."""
    if axis == 2:
        return UP_M
    middle = float(np.mean([scene.base_corners(side)[:, axis].mean() for side in scene.sides]))
    return middle - ACROSS_M / 2, middle + ACROSS_M / 2


def _outline(start: Array, end: Array, radius: float) -> Array:
    """(N, 2): a capsule as it is seen, which is the band around its segment."""
    along = end - start
    angle = math.atan2(along[1], along[0]) if np.linalg.norm(along) > 1e-9 else 0.0
    half = np.linspace(-math.pi / 2, math.pi / 2, 16)
    ends = [
        middle + radius * np.stack([np.cos(angle + turn + half), np.sin(angle + turn + half)], axis=1)
        for middle, turn in ((end, 0.0), (start, math.pi))
    ]
    return np.concatenate(ends)


def nearest_points(scene: Scene, position: Vector) -> Array | None:
    """(2, 3) m: the points of the nearest pair that are nearest to each other, to a millimetre or two; None when all
    are far."""
    near = scene.nearest(position)
    if not near.first:
        return None
    a, a_radii = _points(scene, position, near.first)
    if near.second == "table":
        lowest = int(np.argmin(a[:, 2] - a_radii))
        foot = a[lowest] - (0.0, 0.0, a_radii[lowest])
        return np.array([foot, [foot[0], foot[1], scene.table_m]])
    b, b_radii = _points(scene, position, near.second)
    gap = np.linalg.norm(a[:, None] - b[None], axis=2) - a_radii[:, None] - b_radii[None]
    i, j = np.unravel_index(int(np.argmin(gap)), gap.shape)
    way = (b[j] - a[i]) / max(float(np.linalg.norm(b[j] - a[i])), 1e-9)
    return np.array([a[i] + a_radii[i] * way, b[j] - b_radii[j] * way])


def _points(scene: Scene, position: Vector, name: str) -> tuple[Array, Array]:
    """Points (N, 3) inside a part such as `left forearm`, and how far (N,) its surface is from each."""
    side, _, body = name.partition(" ")
    share = np.linspace(0.0, 1.0, 60)[:, None]
    if body == "base":
        corners = scene.base_corners(side)  # type: ignore[arg-type]
        first, edges = corners[0], (corners[1] - corners[0], corners[3] - corners[0], corners[4] - corners[0])
        grid = np.stack(np.meshgrid(*[np.linspace(0.0, 1.0, 25)] * 3), axis=-1).reshape(-1, 3)
        return first + grid @ np.array(edges), np.zeros(len(grid))
    found = [part for its, part in scene.parts(position) if (its, part.body) == (side, body)]
    places = [np.array(part.start) + share * (np.array(part.end) - np.array(part.start)) for part in found]
    return np.concatenate(places), np.repeat([part.radius for part in found], len(share))
