"""What the page is told of a training is JSON that it can read, of bounded size."""

import importlib
import json
import math


def test_a_long_training_keeps_its_ends_and_its_validations(pack):
    telling = importlib.import_module(f"{pack.__name__}.nodes.host.training.telling")
    step = importlib.import_module(f"{pack.__name__}.lyco_core.train.loop").Step
    steps = [step(n, 1.0 / n, 1e-4, 1.0, 0.5 if n % 777 == 0 else None) for n in range(1, 50_001)]
    told = telling.series(steps)
    assert len(json.dumps(told)) < 300_000
    assert (told[0]["step"], told[-1]["step"]) == (1, 50_000)
    assert sum(entry["validation"] is not None for entry in told) == 50_000 // 777
    assert len(telling.series(steps[:2000])) == 2000


def test_what_is_no_number_is_left_out(pack):
    telling = importlib.import_module(f"{pack.__name__}.nodes.host.training.telling")
    step = importlib.import_module(f"{pack.__name__}.lyco_core.train.loop").Step
    for value in (math.nan, math.inf):
        assert telling.event(step(1, 1.0, 1e-4, 1.0, value))["validation"] is None
