"""The report of a scored evaluation, a page that opens from disk: success of each policy, pairs, every scene."""

import html
from collections.abc import Mapping, Sequence
from datetime import datetime

import aloha_runtime
from aloha_runtime.commands.evaluate_figures import wilson
from aloha_runtime.commands.score_scene import starts
from aloha_runtime.commands.score_trials import Scored, Trials
from aloha_runtime.commands.templates import fill


def page(trials: Trials, cameras: Mapping[str, object]) -> str:
    """The whole page; pictures lie beside it."""
    plan = trials.plan
    return fill(
        "score_template.html",
        task=html.escape(plan.task),
        scored=len(trials.done),
        wanted=len(plan.order()),
        policies="".join(_policy(policy, trials.outcomes(policy)) for policy in plan.policies),
        paired=_paired(trials),
        names="".join(f"<th>{html.escape(policy)}</th>" for policy in plan.policies),
        scenes="".join(_scene(trials, scene, cameras) for scene in range(plan.scenes)),
        footer=f"aloha_runtime {aloha_runtime.__version__}, {datetime.now().astimezone():%Y-%m-%d %H:%M %Z}",
    )


def _policy(policy: str, outcomes: Mapping[int, bool]) -> str:
    solved, count = sum(outcomes.values()), len(outcomes)
    low, high = wilson(solved, count)
    rate = solved / count if count else 0.0
    bar = (
        f'<div class="interval"><i style="left:{100 * low:.1f}%;width:{100 * (high - low):.1f}%"></i>'
        f'<b style="left:{100 * rate:.1f}%"></b></div>'
    )
    return (
        f'<tr><td><b>{html.escape(policy)}</b></td><td class="n">{solved} of {count}</td>'
        f'<td class="n">{low:.0%} to {high:.0%}</td><td class="wide">{bar}</td></tr>'
    )


def _paired(trials: Trials) -> str:
    rows = "".join(
        f"<tr><td>{html.escape(pair.first)}</td><td>{html.escape(pair.second)}</td>"
        + "".join(f'<td class="n">{n}</td>' for n in (pair.both, pair.only_first, pair.only_second, pair.neither))
        + f'<td class="n">{pair.p:.3g}</td></tr>'
        for pair in trials.pairs()
    )
    if not rows:
        return ""
    heads = "".join(f'<th class="n">{name}</th>' for name in ("both", "only first", "only second", "neither", "p"))
    return (
        '<section><h2>In pairs</h2><p class="soft">Scenes that both have met. p is McNemar\'s exact test: how often '
        "equally good policies would differ at least this much.</p>"
        f"<table><thead><tr><th>first</th><th>second</th>{heads}</tr></thead><tbody>{rows}</tbody></table></section>"
    )


def _scene(trials: Trials, scene: int, cameras: Mapping[str, object]) -> str:
    pictures = "".join(f'<img src="{path}" loading="lazy" alt="">' for path in starts(trials.folder, scene, cameras))
    met = {scored.policy: scored for scored in trials.done if scored.scene == scene}
    cells = "".join(_cell(met.get(policy)) for policy in trials.plan.policies)
    return f'<tr><td class="n">{scene + 1}</td><td class="start">{pictures}</td>{cells}</tr>'


def _cell(scored: Scored | None) -> str:
    if scored is None:
        return '<td class="soft">to come</td>'
    said: Sequence[str] = ("success" if scored.success else "failure", f"{scored.seconds:.1f} s", scored.cause)
    return f'<td class="{"good" if scored.success else "bad"}">{html.escape(", ".join(said))}</td>'
