"""`aloha eval`: policies over many seeds of one task, in virtual time and parallel workers."""

import contextlib
import json
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from aloha_runtime.act.ensemble import MODES
from aloha_runtime.commands import evaluate_page, made_folder
from aloha_runtime.commands.evaluate_figures import (
    PAPER,
    SCRIPTED,
    STAGES,
    Contender,
    Outcome,
    Paired,
    Result,
    Trial,
    as_json,
    compare,
    labels,
)
from aloha_runtime.commands.workers import run_jobs
from aloha_runtime.data import owned
from aloha_runtime.errors import AlohaError, ConfigError
from aloha_runtime.sim.env import check_name
from aloha_runtime.sim.model import Task

RESULTS = "results.json"
"""In a report's folder, by which it is known to be one."""


PAPER_NOTE = "paper: Zhao et al. 2023, ACT in its own simulation, 50 scripted demonstrations"


@dataclass(frozen=True)
class Evaluation:
    """What is asked: every policy with every ensemble mode on `episodes` seeds from `first_seed`.

    `task`: a name of `sim/env.py`; `max_steps`: the task's own unless given; `out`: folder of the report with results,
    page and, with `videos`, a video of every episode.
    """

    policies: tuple[str, ...]
    task: str
    episodes: int
    first_seed: int
    workers: int
    ensembles: tuple[str, ...] = ("paper",)
    max_steps: int | None = None
    device: str = "cpu"
    out: Path | None = None
    videos: bool = False


def evaluate(asked: Evaluation, json_file: Path | None = None) -> list[Result]:
    """Play all episodes, print the tables, write JSON and report; results in the order of `asked`."""
    task = check_name(asked.task)
    contenders = _contenders(asked)
    console = Console(highlight=False)
    if json_file is not None:
        _check_writable(json_file)
    if asked.out is None:
        results = _results(asked, task, contenders, _play(asked, contenders, None, console))
    else:
        with _folder(asked.out) as folder:
            played = _play(asked, contenders, folder if asked.videos else None, console)
            results = _results(asked, task, contenders, played)
            _write(folder / RESULTS, asked.task, results)
            (folder / "index.html").write_text(evaluate_page.page(asked.task, results, asked.videos), encoding="utf-8")
    _print(asked, task, results, console)
    if json_file is not None:
        _write(json_file, asked.task, results)
    if asked.out is not None:
        console.print(f"report: {asked.out / 'index.html'}")
    return results


def _contenders(asked: Evaluation) -> list[Contender]:
    """Every policy with every mode, once; the script has no chunks to ensemble.

    Raises ConfigError for a mode that is none."""
    for name in asked.ensembles:
        if name not in MODES:
            raise ConfigError(f"--ensemble {name!r} is not one of {', '.join(MODES)}")
    modes = [mode for name in asked.ensembles for mode in MODES if mode == name]
    wanted = [
        Contender(policy, modes[0] if policy == SCRIPTED else mode) for policy in asked.policies for mode in modes
    ]
    return list(dict.fromkeys(wanted))


def _play(
    asked: Evaluation, contenders: Sequence[Contender], folder: Path | None, console: Console
) -> list[tuple[Trial, Outcome]]:
    """All episodes, seed by seed, so that contenders keep pace; a line for each while a bar shows what is left."""
    seeds = range(asked.first_seed, asked.first_seed + asked.episodes)
    trials = [
        Trial(number, seed, None if folder is None else folder / evaluate_page.video_path(number, seed))
        for seed in seeds
        for number in range(len(contenders))
    ]
    names = labels(contenders)
    setup = partial(_player, tuple(contenders), asked.task, asked.max_steps, asked.device)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    done, solved = [], 0
    with Progress(*columns, console=console, transient=True) as progress:
        bar = progress.add_task(asked.task, total=len(trials))
        with closing(run_jobs(setup, trials, asked.workers, _describe(names))) as finished:
            for trial, outcome in finished:
                done.append((trial, outcome))
                solved += outcome.success
                progress.console.print(_line(asked.task, names[trial.contender], outcome))
                progress.update(bar, advance=1, description=f"{asked.task}: {solved} of {len(done)} solved")
    return done


def _player(
    contenders: tuple[Contender, ...], task: str, max_steps: int | None, device: str
) -> Callable[[Trial], Outcome]:
    """In a worker: what plays an episode. Only there PyTorch and MuJoCo are loaded."""
    from aloha_runtime.commands.evaluate_episode import player

    return player(contenders, task, max_steps, device)


def _describe(names: Sequence[str]) -> Callable[[Trial], str]:
    return lambda trial: f"{names[trial.contender]}, seed {trial.seed}"


def _line(task: str, name: str, outcome: Outcome) -> str:
    if outcome.success:
        return f"seed {outcome.seed:>4}  {name}: [green]solved[/] after {outcome.steps} steps"
    return f"seed {outcome.seed:>4}  {name}: [red]not solved[/] in {outcome.steps} steps, stage {outcome.stage} of 4"


def _results(
    asked: Evaluation, task: Task, contenders: Sequence[Contender], played: Sequence[tuple[Trial, Outcome]]
) -> list[Result]:
    names = labels(contenders)
    results = []
    for number, (contender, name) in enumerate(zip(contenders, names, strict=True)):
        own = sorted((outcome for trial, outcome in played if trial.contender == number), key=lambda one: one.seed)
        results.append(Result(name, contender, task, tuple(own)))
    return results


def _print(asked: Evaluation, task: Task, results: Sequence[Result], console: Console) -> None:
    last = asked.first_seed + asked.episodes - 1
    title = f"{asked.task}, seeds {asked.first_seed} to {last}"
    table = Table(title=title, title_justify="left", caption=PAPER_NOTE, caption_justify="left", pad_edge=False)
    table.add_column("policy")
    for heading in ("solved", "95 %", *(name for name, _ in STAGES[task]), "steps"):
        table.add_column(heading, justify="right")
    for result in results:
        low, high = result.interval
        shares = [f"{share:.0%}" for share in result.stages.values()]
        steps = "-" if result.median_steps is None else f"{result.median_steps:.0f}"
        count = f"{result.solved} of {len(result.outcomes)}"
        table.add_row(result.label, count, f"{low:.0%} to {high:.0%}", *shares, steps)
    table.add_row("paper", "", "", *(f"{share:.0%}" for share in PAPER[task]), "", style="dim")
    console.print(table)
    for result in results:
        failed = [outcome for outcome in result.outcomes if not outcome.success]
        if failed:
            seeds = ", ".join(f"{outcome.seed} (stage {outcome.stage})" for outcome in failed)
            console.print(f"{result.label} failed at seeds: {seeds}")
    if len(results) > 1:
        console.print(paired_table(compare(results), "the same seeds, in pairs"))


def paired_table(pairs: Sequence[Paired], title: str) -> Table:
    """What two policies made of the same beginnings."""
    caption = "p: McNemar's exact test, how often equally good policies would differ at least this much"
    table = Table(title=title, title_justify="left", caption=caption, caption_justify="left")
    table.add_column("first")
    table.add_column("second")
    for heading in ("both", "only first", "only second", "neither", "p"):
        table.add_column(heading, justify="right")
    for pair in pairs:
        counts = (pair.both, pair.only_first, pair.only_second, pair.neither)
        table.add_row(pair.first, pair.second, *map(str, counts), f"{pair.p:.3g}")
    return table


def _check_writable(path: Path) -> None:
    """Before anything starts: a file that cannot be written would be noticed only after all episodes."""
    with contextlib.suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
    if not os.access(path if path.exists() else path.parent, os.W_OK) or path.is_dir():
        raise AlohaError(f"the results cannot be written to {path}: choose another file with --json")


def _write(path: Path, task: str, results: Sequence[Result]) -> None:
    path.write_text(json.dumps(as_json(task, results), indent=2) + "\n", encoding="utf-8")


@contextmanager
def _folder(out: Path) -> Iterator[Path]:
    """A folder that becomes `out` when all went well, in place of an older report, and else leaves nothing behind."""
    if out.exists() and not out.is_dir():
        raise AlohaError(f"{out} exists and is no report of an evaluation: choose another folder with --out")
    if (strange := made_folder.foreign(out)) is not None:
        raise AlohaError(f"{out} holds {strange.name}, which no evaluation wrote so: choose another folder with --out")
    aside = out.with_name(f".{out.name}.incomplete")
    try:
        owned.begin(aside)
    except OSError as error:
        raise AlohaError(
            f"no report can be written to {out} ({error.strerror}): choose another folder with --out"
        ) from None
    try:
        yield aside
        made_folder.sign(aside)
        made_folder.empty(out)
        aside.rename(out)
        owned.release(aside)
    finally:
        owned.remove(aside)
