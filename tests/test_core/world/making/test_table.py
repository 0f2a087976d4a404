import json

from flexiact_core.world.actions import ACTIONS, SEEN_ACTIONS
from flexiact_core.world.making.table import make_table


def record(action, target, value, seed=0):
    values = ("slope", "cosine", "accuracy", "colour", "shape", "background", "right_shape", "likeness", "score")
    return {"action": action, "target": target, "seed": seed} | {name: value for name in values}


def test_the_table_has_a_row_for_seen_and_one_for_unseen_actions():
    records = [record(action, target, 0.5) for action in ACTIONS for target in range(2)]
    none = [r | {"slope": 0.1} for r in records]
    table = make_table({"none": none, "weighted": [r | {"slope": 0.9} for r in records], "oracle": records})
    assert table.count("| FAE + weighting | seen |") == table.count("| FAE + weighting | never seen |") == 1
    assert json.dumps(records) and SEEN_ACTIONS[0] in table
