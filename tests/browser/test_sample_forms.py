"""Samples on the card that are no pictures of one prompt: layers, a row each time, and sound, with a player."""

from pathlib import Path

import numpy as np
import pytest
from lyco_testing.comfy import Server
from lyco_testing.page import KEPT, RENDERERS, keep, opened
from PIL import Image

LAYERS, STEPS = 3, (0, 5, 10)


def song(path: Path) -> None:
    import av

    with av.open(str(path), "w", format="flac") as container:
        stream = container.add_stream("flac", rate=44100, layout="stereo")
        wave = np.sin(np.arange(44100) * 0.03).astype(np.float32)
        frame = av.AudioFrame.from_ndarray(np.repeat(wave, 2)[None], format="flt", layout="stereo")
        frame.sample_rate = 44100
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


def told(folder: Path) -> list[dict]:
    """Files as a training leaves them: of one prompt layers, of the other sound."""
    folder.mkdir(parents=True, exist_ok=True)
    made = []
    for step in STEPS:
        for layer in range(LAYERS):
            pixels = np.zeros((64, 96, 4), dtype=np.uint8)
            pixels[16 * layer : 16 * layer + 24, 8:88] = (60 + 80 * layer, 200 - 9 * step, 90, 255)
            name = f"apart_{step:06d}_00_42_{layer}.png"
            Image.fromarray(pixels).save(folder / name)
            made.append((step, 0, layer, name))
        name = f"apart_{step:06d}_01_43.flac"
        song(folder / name)
        made.append((step, 1, 0, name))
    place = {"subfolder": "loras/sample", "type": "output", "prompt": "a house", "seed": 42}
    return [{**place, "filename": n, "step": s, "number": p, "layer": layer} for s, p, layer, n in made]


@pytest.mark.parametrize("renderer", RENDERERS)
def test_layers_have_a_row_each_time_and_sound_a_player(renderer: str, server: Server):
    samples = told(server.base / "output" / "loras" / "sample")
    with opened(server, (1300, 1900), **RENDERERS[renderer]) as page:
        node = page.add("LycoTrainAdapter", 440, 90)
        page.page.evaluate(
            """([id, samples]) => window.comfyAPI.api.api.dispatchCustomEvent("lyco.train", {
                node: String(id), total: 100, seconds_left: 1, samples, unsampled: null, loss: 0.1, mean_of: 20,
                steps: Array.from({length: 10}, (_, i) => ({step: i + 1, loss: 1 / (i + 1), learning_rate: 1e-4,
                    validation: null})),
            })""",
            [node, samples],
        )
        rows = page.page.locator(".lyco-sample-row")
        page.wait("step 10")
        assert rows.count() == len(STEPS) + 1
        captions = [row.locator("figcaption").all_inner_texts() for row in rows.all()]
        assert captions == [[f"step {step}"] * LAYERS for step in reversed(STEPS)] + [[f"step {s}" for s in STEPS]]
        rows.nth(len(STEPS)).scroll_into_view_if_needed()
        lasts = """players => Promise.all(players.map((one) => new Promise((done) => {
            one.ondurationchange = () => done(one.duration);
            one.preload = "metadata";
            one.load();
        })))"""
        assert rows.nth(len(STEPS)).locator("audio").evaluate_all(lasts) == pytest.approx([1.0] * len(STEPS), abs=0.05)
        keep(page.page, KEPT, f"sample-forms-sound-{renderer}")
        rows.first.scroll_into_view_if_needed()
        keep(page.page, KEPT, f"sample-forms-{renderer}")
        assert page.errors == []
