"""Rates, intervals, stages and the paired test of an evaluation."""

from itertools import product
from math import comb

import pytest

from aloha_runtime.commands.evaluate_figures import (
    Contender,
    Outcome,
    Result,
    as_json,
    compare,
    labels,
    mcnemar,
    wilson,
)
from aloha_runtime.commands.evaluate_page import page, video_path


def result(stages: list[int], policy: str = "demo", task: str = "transfer_cube") -> Result:
    outcomes = tuple(
        Outcome(seed, stage == 4, stage, 200 + seed, 200 + seed if stage == 4 else None)
        for seed, stage in enumerate(stages)
    )
    return Result(policy, Contender(policy, "paper"), task, outcomes)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("successes", "trials", "low", "high"),
    [(8, 10, 0.4902, 0.9433), (0, 10, 0.0, 0.2775), (50, 50, 0.9287, 1.0), (1, 1, 0.2065, 1.0), (0, 0, 0.0, 1.0)],
)
def test_wilson_intervals_are_the_published_ones(successes: int, trials: int, low: float, high: float) -> None:
    assert wilson(successes, trials) == pytest.approx((low, high), abs=5e-5)


@pytest.mark.parametrize("n", range(7))
def test_mcnemar_counts_the_outcomes_of_fair_coins(n: int) -> None:
    """By enumeration: the share of all 2^n outcomes that are at least as lopsided."""
    for first in range(n + 1):
        lopsided = sum(abs(2 * sum(coins) - n) >= abs(2 * first - n) for coins in product((0, 1), repeat=n))
        assert mcnemar(first, n - first) == pytest.approx(lopsided / 2**n)


def test_mcnemar_of_a_textbook_case() -> None:
    assert mcnemar(1, 9) == pytest.approx(2 * (comb(10, 0) + comb(10, 1)) / 1024)
    assert mcnemar(9, 1) == mcnemar(1, 9) < 0.05


def test_stages_are_those_of_the_papers_table() -> None:
    stages = [0, 1, 1, 2, 3, 4, 4, 4, 4, 4]
    assert result(stages).stages == {"touched": 0.9, "lifted": 0.7, "transferred": 0.5}
    assert result(stages, task="insertion").stages == {"grasp": 0.7, "contact": 0.6, "inserted": 0.5}
    assert result(stages).median_steps == 207
    assert result([0, 3]).median_steps is None


def test_policies_are_compared_seed_by_seed() -> None:
    first, second = result([4, 4, 4, 4, 0, 0], "a"), result([4, 0, 1, 2, 4, 0], "b")
    (pair,) = compare([first, second])
    assert (pair.first, pair.second) == ("a", "b")
    assert (pair.both, pair.only_first, pair.only_second, pair.neither) == (1, 3, 1, 1)
    assert pair.p == mcnemar(3, 1)
    assert len(compare([first, second, result([4] * 6, "c")])) == 3


def test_the_json_of_one_policy_and_of_several() -> None:
    one = as_json("transfer_cube", [result([4, 2])])
    assert one["success_rate"] == 0.5
    assert one["interval"] == list(wilson(1, 2))
    assert one["stages"] == {"touched": 1.0, "lifted": 1.0, "transferred": 0.5}
    assert one["stage_counts"] == [2, 2, 1, 1]
    assert one["episodes"][1] == {"seed": 1, "success": False, "stage": 2, "steps": 201, "success_step": None}
    several = as_json("transfer_cube", [result([4, 2]), result([4, 4], "other")])
    assert several["policies"][0] == one
    assert several["paired"][0]["only_second"] == 1


def test_labels_are_short_and_different() -> None:
    def of(*policies: str, modes: tuple[str, ...] = ("paper",)) -> list[str]:
        return labels([Contender(policy, mode) for policy in policies for mode in modes])  # type: ignore[arg-type]

    assert of("out/act/checkpoints/last/pretrained_model", "demo") == ["act/last", "demo"]
    assert of("x/a/b/c", "y/a/b/c") == ["x/a/b/c", "y/a/b/c"]
    assert of("demo", modes=("paper", "off")) == ["demo, paper", "demo, off"]
    assert of("user/model", "scripted") == ["user/model", "scripted"]


def test_the_page_escapes_names_and_links_every_video() -> None:
    results = [result([4, 0], "<b>"), result([4, 4], "other")]
    text = page("AlohaTransferCube-v0", results, videos=True)
    assert "<b><b></b>" not in text
    assert "&lt;b&gt;" in text
    for number, seed in product(range(2), range(2)):
        assert f'data-video="{video_path(number, seed)}"' in text
    assert f'src="{video_path(0, 1)}"' in text  # the failure is shown first
    assert "<video" not in page("AlohaTransferCube-v0", results[:1], videos=False)
    assert "http" not in text
