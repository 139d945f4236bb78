"""What the page is told of a training is JSON that it can read, of bounded size."""

import importlib
import json
import math


def test_a_long_training_keeps_its_ends_and_its_validations(pack):
    as_page = importlib.import_module(f"{pack.__name__}.nodes.host.training.as_page")
    step = importlib.import_module(f"{pack.__name__}.lyco_core.train.loop").Step
    steps = [step(n, 1.0 / n, 1e-4, 1.0, 0.5 if n % 777 == 0 else None) for n in range(1, 50_001)]
    told = as_page.series(steps)
    assert len(json.dumps(told)) < 300_000
    assert (told[0]["step"], told[-1]["step"]) == (1, 50_000)
    assert sum(entry["validation"] is not None for entry in told) == 50_000 // 777
    assert len(as_page.series(steps[:2000])) == 2000


def test_what_is_no_number_is_left_out(pack):
    as_page = importlib.import_module(f"{pack.__name__}.nodes.host.training.as_page")
    step = importlib.import_module(f"{pack.__name__}.lyco_core.train.loop").Step
    for value in (math.nan, math.inf):
        assert as_page.event(step(1, 1.0, 1e-4, 1.0, value))["validation"] is None


def test_what_is_needed_is_told_before_the_first_step(pack, monkeypatch):
    """To the card, as numbers, and in the line of progress, for pages without it."""
    telling = importlib.import_module(f"{pack.__name__}.nodes.host.training.telling")
    estimate = importlib.import_module(f"{pack.__name__}.lyco_core.train.estimate").Estimate
    sent = []

    class Server:
        client_id = "page"

        def send_sync(self, *event: object) -> None:
            sent.append(event)

        def send_progress_text(self, *text: object) -> None:
            sent.append(text)

    monkeypatch.setattr(telling, "_server", Server)
    gib = 2**30
    needs = estimate(int(7.7 * gib), int(2.6 * gib), gib // 50, gib // 50, gib // 25, 11 * gib, 38, 60)
    with telling.Telling(telling.Asked("5:12")) as tell:
        tell.needs(needs)
    (event, message, client), (text, node, _) = sent
    assert (event, message["node"], client, node) == ("lyco.needs", "5:12", "page", "5:12")
    assert json.loads(json.dumps(message["needs"]))["total"] == needs.total
    assert message["needs"]["swapped"] == 38
    assert text == (
        "needs about 10.4 GB: weights 7.7, activations 2.6, adapter 0.02, gradients 0.02, optimizer 0.04; free 11.0; "
        "38 of 60 blocks are swapped"
    )
