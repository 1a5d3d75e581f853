"""The 12 V cut and back in every mode, in virtual time; `aloha bench faults --only power --soak` tries every moment."""

import pytest

from aloha_runtime.commands.faults import power
from aloha_runtime.commands.faults.power import GAP_S, IN_VAIN, SETS, SITUATIONS, Case, carry_out, cases

TRIED = [
    Case("idle", SETS["follower_left"], 0.02, IN_VAIN),
    Case("the ramp", SETS["all arms"], 0.02, IN_VAIN),
    Case("armed", SETS["leader_right"], 0.02, GAP_S[1]),
    Case("teleop", SETS["leader_left"], 0.11, IN_VAIN),
    Case("teleop", SETS["follower_left"], 0.37, GAP_S[2], gravity=True),
    Case("policy", SETS["all arms"], 0.11, GAP_S[2]),
    Case("replay", SETS["follower_right"], 0.0, GAP_S[0]),
    Case("hold", SETS["leader_left"], 0.0, GAP_S[1]),
    Case("park", SETS["all arms"], 0.11, IN_VAIN),
    Case("fault", SETS["all arms"], 0.11, IN_VAIN),
]


@pytest.mark.parametrize("case", TRIED, ids=lambda case: f"{case.situation}-{len(case.arms)}-{case.gap_s}")
def test_a_power_cut_is_a_hold_and_nothing_comes_back_by_itself(case: Case) -> None:
    trial = carry_out(case)
    assert trial.broken == ""
    assert trial.figure is not None
    assert trial.figure < power.MOVED_RAD


def test_every_mode_and_every_set_of_arms_is_in_the_table() -> None:
    rows = {scenario.name for scenario in power.POWER.scenarios}
    assert len(rows) == len(SITUATIONS) * len(SETS) == 9 * 5
    assert len(set(cases("park", SETS["all arms"]))) == power.EVERY
