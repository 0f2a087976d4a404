import math

import pytest

from flexiact_core.errors import FileError, SettingError
from flexiact_core.flexiact.bias import MotionBias, choose_bias, own_bias


def paper_formula(timestep: int, alpha: float, held: int, off: int) -> float:
    # FlexiAct section 3.4, written the other way round: cos(x) + 1 = 2 cos^2(x / 2).
    if timestep >= held:
        return alpha
    if timestep < off:
        return 0.0
    return alpha * math.cos(math.pi / 2 * (held - timestep) / (held - off)) ** 2


def released_runs(golden):
    for run in golden.schedule["runs"]:
        held = run["high_timesteps"] * 1000
        yield MotionBias(run["reweight_scale"], held, 700, "release"), run["steps"]


def test_release_weighting_is_the_recorded_one_at_every_step_of_every_run(golden):
    runs = list(released_runs(golden))
    assert runs
    for bias, steps in runs:
        for step in steps:
            assert bias.at(step["t"]) == pytest.approx(step["reweight_value"] or 0.0, abs=1e-6), (bias, step)


def test_release_weighting_is_the_recorded_one_around_its_edges(golden):
    bias = MotionBias(weighting="release")
    edge = golden.schedule["edge_1000_steps_ht0.8_rw1.0"]
    assert {row["t"] for row in edge} >= {801, 800, 799, 701, 700, 699}
    for row in edge:
        assert bias.at(row["t"]) == pytest.approx(row["reweight_value"] or 0.0, abs=1e-6), row


def test_both_weightings_agree_at_strength_1(golden):
    for bias, _ in released_runs(golden):
        if bias.strength == 1:
            paper = MotionBias(1.0, bias.hold_until, bias.off_below)
            assert [paper.at(t) for t in range(1000)] == [bias.at(t) for t in range(1000)]


@pytest.mark.parametrize(("strength", "held", "off"), [(1.0, 800, 700), (0.5, 900, 700), (2.5, 801, 800), (-1, 500, 0)])
def test_paper_weighting_is_the_papers_formula_at_every_timestep(strength, held, off):
    bias = MotionBias(strength, held, off)
    for timestep in range(1000):
        assert bias.at(timestep) == pytest.approx(paper_formula(timestep, strength, held, off), abs=1e-9), timestep


def test_weighting_scales_with_strength_in_the_paper_and_jumps_to_1_in_the_release():
    assert MotionBias(0.5).at(750) == pytest.approx(0.25)
    assert MotionBias(0.5, weighting="release").at(799) > 0.99
    assert MotionBias(0.5, weighting="release").at(800) == 0.5


def test_strength_0_never_biases_in_the_paper_weighting():
    bias = MotionBias(0.0)
    assert all(bias.at(timestep) == 0 for timestep in range(1000))


@pytest.mark.parametrize(("hold_until", "off_below"), [(700, 700), (700, 800), (0, 999)])
def test_hold_until_must_lie_above_off_below(hold_until, off_below):
    with pytest.raises(
        SettingError, match=f"hold_until {hold_until} must lie above off_below {off_below}.*800 and 700"
    ):
        MotionBias(hold_until=hold_until, off_below=off_below)


@pytest.mark.parametrize("strength", [math.nan, math.inf, -math.inf])
def test_a_strength_that_is_no_number_is_refused(strength):
    with pytest.raises(SettingError, match="bias_strength .*finite.*1 is the paper's value"):
        MotionBias(strength)


def test_an_unknown_weighting_is_refused_with_the_choices():
    with pytest.raises(SettingError, match="'paper' or 'release'"):
        MotionBias(weighting="upstream")


OWN = {"motion_bias": {"strength": 3.0, "hold_until": 400, "off_below": 300}}


def test_auto_is_what_the_base_says_times_the_strength_asked_for():
    assert choose_bias(OWN, 1.0, 800, 700, "auto") == MotionBias(3.0, 400, 300)
    assert choose_bias(OWN, 0.5, 1, 999, "auto") == MotionBias(1.5, 400, 300)
    assert choose_bias(OWN, 0.0, 800, 700, "auto").at(999) == 0


def test_auto_is_the_papers_where_the_base_says_nothing_and_settings_go_before_the_base():
    assert choose_bias({}, 1.0, 5, 4, "auto") == MotionBias(1.0, 800, 700)
    assert choose_bias(OWN, 0.5, 900, 100, "release") == MotionBias(0.5, 900, 100, "release")
    with pytest.raises(SettingError, match="must lie above"):
        choose_bias(OWN, 1.0, 300, 300, "paper")


@pytest.mark.parametrize(
    "said", ["yes", {"strength": "much"}, {"speed": 1}, {"hold_until": 5000}, {"strength": math.nan}, [1, 2], 3]
)
def test_a_base_whose_own_bias_cannot_be_one_is_refused_with_the_key(said):
    with pytest.raises(FileError, match="config.json: 'motion_bias' holds"):
        own_bias({"motion_bias": said})
