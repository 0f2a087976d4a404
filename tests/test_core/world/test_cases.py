import json

import pytest

from flexiact_core.metrics.statistics import interval
from flexiact_core.world.actions import ACTIONS, SEEN_ACTIONS
from flexiact_core.world.cases import SETTINGS, make_cases
from flexiact_core.world.making.table import make_table


def record(action, target, value, seed=0):
    values = ("slope", "cosine", "accuracy", "colour", "shape", "background", "right_shape")
    return {"action": action, "target": target, "seed": seed} | {name: value for name in values}


def test_the_interval_treats_the_seeds_of_a_target_as_one():
    few = [record("jump", target, float(target % 2)) for target in range(8)]
    repeated = [record("jump", target, float(target % 2), seed) for target in range(8) for seed in range(50)]
    assert interval(repeated, "slope") == pytest.approx(interval(few, "slope"))


def test_the_interval_holds_the_mean():
    mean, low, high = interval([record("jump", target, target / 10) for target in range(10)], "slope")
    assert low < mean < high
    assert mean == pytest.approx(0.45)


def test_a_row_asks_for_every_target_with_every_seed():
    cases = make_cases("jump", SETTINGS["weighted"], 3, 2)
    assert [(case.target, case.seed) for case in cases] == [(0, 0), (0, 1), (1, 0), (1, 1), (2, 0), (2, 1)]


def test_only_the_rows_that_say_so_name_an_action():
    verbs = {action.verb for action in ACTIONS.values()}
    for key, setting in SETTINGS.items():
        for case in make_cases("hop", setting, 3, 1):
            named = verbs & set(case.words.split())
            assert bool(named) == (setting.words != "plain"), key


def test_a_contrary_word_is_never_part_of_the_action():
    for action in ACTIONS:
        for case in make_cases(action, SETTINGS["other"], 8, 1):
            own = {ACTIONS[part].verb for part in (action, *ACTIONS[action].parts)}
            assert own.isdisjoint(case.words.split())


def test_the_table_has_a_row_for_seen_and_one_for_unseen_actions():
    records = [record(action, target, 0.5) for action in ACTIONS for target in range(2)]
    none = [r | {"slope": 0.1} for r in records]
    table = make_table({"none": none, "weighted": [r | {"slope": 0.9} for r in records], "oracle": records})
    assert table.count("| FAE + weighting | seen |") == table.count("| FAE + weighting | never seen |") == 1
    assert json.dumps(records) and SEEN_ACTIONS[0] in table
