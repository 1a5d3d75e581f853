"""The report of an evaluation as a folder to open in a browser: a page, and beside it a video of every episode."""

import html
from collections.abc import Sequence
from datetime import datetime
from pathlib import PurePosixPath

import aloha_runtime
from aloha_runtime.commands.evaluate_figures import PAPER, STAGES, Outcome, Result, compare
from aloha_runtime.commands.templates import fill
from aloha_runtime.sim.model import Task

STAGE_NAMES: dict[Task, tuple[str, ...]] = {
    "transfer_cube": ("nothing touched", "touched", "lifted", "left touches", "transferred"),
    "insertion": ("not both touched", "both touched", "grasp", "contact", "inserted"),
}
"""Stages 0 to 4 (`sim/tasks.py`) in the words of the paper's table."""


def video_path(contender: int, seed: int) -> PurePosixPath:
    """Where the video of an episode lies in the folder."""
    return PurePosixPath("videos", f"policy_{contender + 1}", f"seed_{seed}.mp4")


def page(task: str, results: Sequence[Result], videos: bool) -> str:
    """The whole page; with `videos` its cells play those at `video_path`."""
    seeds = [outcome.seed for outcome in results[0].outcomes]
    first = results[0]
    headline = f"{first.success_rate:.0%} solved" if len(results) == 1 else f"{len(results)} policies side by side"
    return fill(
        "evaluate_template.html",
        title=html.escape(f"{task}: {headline}"),
        headline=html.escape(headline),
        task=html.escape(task),
        seeds=f"{seeds[0]} to {seeds[-1]}",
        episodes=len(seeds),
        stages="".join(f'<th class="n">{name}</th>' for name, _ in STAGES[first.task]),
        policies="".join(map(_policy_row, results)) + _paper_row(first.task),
        paired=_paired(results),
        player=_player(results, seeds) if videos else "",
        names="".join(f"<th>{html.escape(result.label)}</th>" for result in results),
        rows="".join(_seed_row(results, index, videos) for index in range(len(seeds))),
        footer=f"aloha_runtime {aloha_runtime.__version__}, {datetime.now().astimezone():%Y-%m-%d %H:%M %Z}",
    )


def _policy_row(result: Result) -> str:
    low, high = result.interval
    bar = (
        f'<div class="interval"><i style="left:{100 * low:.1f}%;width:{100 * (high - low):.1f}%"></i>'
        f'<b style="left:{100 * result.success_rate:.1f}%"></b></div>'
    )
    shares = "".join(f'<td class="n">{share:.0%}</td>' for share in result.stages.values())
    steps = "-" if result.median_steps is None else f"{result.median_steps:.0f}"
    return (
        f'<tr><td><b>{html.escape(result.label)}</b></td><td class="n">{result.solved} of {len(result.outcomes)}</td>'
        f'<td class="n">{low:.0%} to {high:.0%}</td><td class="wide">{bar}</td>{shares}<td class="n">{steps}</td></tr>'
    )


def _paper_row(task: Task) -> str:
    shares = "".join(f'<td class="n">{share:.0%}</td>' for share in PAPER[task])
    name = "the paper, 50 scripted demonstrations"
    return f'<tr class="soft"><td>{name}</td><td></td><td></td><td></td>{shares}<td></td></tr>'


def _paired(results: Sequence[Result]) -> str:
    if len(results) == 1:
        return ""
    rows = "".join(
        f"<tr><td>{html.escape(pair.first)}</td><td>{html.escape(pair.second)}</td>"
        + "".join(f'<td class="n">{n}</td>' for n in (pair.both, pair.only_first, pair.only_second, pair.neither))
        + f'<td class="n">{pair.p:.3g}</td></tr>'
        for pair in compare(results)
    )
    heads = "".join(f'<th class="n">{name}</th>' for name in ("both", "only first", "only second", "neither", "p"))
    return (
        '<section><h2>In pairs</h2><p class="soft">Solved seeds of two policies. p is McNemar\'s exact test: how often '
        "equally good policies would differ at least this much.</p>"
        f"<table><thead><tr><th>first</th><th>second</th>{heads}</tr></thead><tbody>{rows}</tbody></table></section>"
    )


def _player(results: Sequence[Result], seeds: Sequence[int]) -> str:
    """The video element, at the first failure if there is one."""
    shown = next(
        ((n, o.seed) for n, result in enumerate(results) for o in result.outcomes if not o.success), (0, seeds[0])
    )
    return (
        '<section class="player"><h2>Episode <span id="shown"></span></h2>'
        '<video id="video" controls muted autoplay playsinline '
        f'src="{video_path(*shown)}"></video>'
        '<p class="soft">Pick an episode in the table; the next one follows. '
        "On the rig, the corner shows what the policy sees.</p>"
        "</section>"
    )


def _seed_row(results: Sequence[Result], index: int, videos: bool) -> str:
    outcomes = [result.outcomes[index] for result in results]
    cells = "".join(_cell(result, n, outcomes[n], videos) for n, result in enumerate(results))
    tone = "solved" if all(outcome.success for outcome in outcomes) else "failed"
    return f'<tr class="{tone}"><td class="n">{outcomes[0].seed}</td>{cells}</tr>'


def _cell(result: Result, number: int, outcome: Outcome, videos: bool) -> str:
    text = f"{STAGE_NAMES[result.task][outcome.stage]}, {outcome.steps} steps"
    link = f' data-video="{video_path(number, outcome.seed)}"' if videos else ""
    return f'<td class="{"good" if outcome.success else "bad"}"{link} tabindex="0">{html.escape(text)}</td>'
