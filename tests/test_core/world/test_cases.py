from flexiact_core.world.actions import ACTIONS
from flexiact_core.world.cases import SETTINGS, make_cases


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
        for case in make_cases(action, SETTINGS["other_1"], 8, 1):
            own = {ACTIONS[part].verb for part in (action, *ACTIONS[action].parts)}
            assert own.isdisjoint(case.words.split())
