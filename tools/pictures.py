"""Takes the project's pictures from a running ComfyUI: nodes of the help pages, thumbnails, and the README's.

    python tools/pictures.py

Needs what the browser tests need (DEVELOPERS.md), and fonts for Japanese and Chinese (fonts-noto-cjk). Look at
every picture before it is committed.
"""

import json
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "support")]

from lyco_testing.comfy import Server, find_comfyui, running_server  # noqa: E402
from lyco_testing.nodes import adapters_of  # noqa: E402
from lyco_testing.page import Canvas, opened  # noqa: E402
from lyco_testing.page_files import fill, many_blocks, thumbnail  # noqa: E402
from lyco_testing.tiny_wan import TEXT  # noqa: E402
from PIL import Image  # noqa: E402
from safetensors.torch import load_file, save_file  # noqa: E402

THUMBNAIL = 640
"""Pixels of either side: the frame of ComfyUI's template browser is a square."""

CHOSEN = {"LycoTrainingDataset": {"folder": "my_pictures"}}
"""Values with which a node's card has something to say."""

FOLDERS = {"unet_name": "diffusion_models", "clip_name": "text_encoders", "vae_name": "vae"}
"""Input of a loader -> the models folder that it lists."""


def nodes(server: Server) -> None:
    """web/docs/<node>/node.png, node-ja.png, node-zh.png: each node with its card, as the Vue renderer draws it."""
    photographs(server.base / "input" / "my_pictures")
    for locale, name in (("en", "node.png"), ("ja", "node-ja.png"), ("zh", "node-zh.png")):
        with opened(server, (900, 1400), VueNodes_Enabled=True, Locale=locale) as page:
            for kind, adapters in adapters_of(server).items():
                page.clear()
                files = dict(zip(adapters, ("my_lokr.safetensors", "half.safetensors"), strict=False))
                node = page.add(kind, 160, 120, **files, **CHOSEN.get(kind, {}))
                if len(adapters) > 1:
                    page.page.locator(".lyco-unfold:visible").first.click()
                    page.page.mouse.move(0, 0)  # else what comes there next shows its tooltip
                page.page.evaluate("id => app.graph.getNodeById(id).setSize([400, 60])", node)
                page.page.wait_for_timeout(1500)
                page.page.locator(f'[data-node-id="{node}"]').screenshot(path=ROOT / "web" / "docs" / kind / name)


def thumbnails(server: Server) -> None:
    """example_workflows/<name>.jpg: as much of each workflow around our node as fills the frame."""
    furnish(server)
    with opened(server, (1920, 1200), VueNodes_Enabled=True) as page:
        for path in sorted((ROOT / "example_workflows").glob("*.json")):
            page.clear()
            page.load(json.loads(path.read_text("utf-8")))
            page.page.wait_for_timeout(1500)
            picture = path.with_suffix(".png")
            page.page.screenshot(path=picture, clip=square(page, fit(page)))
            shown = Image.open(picture).convert("RGB").resize((THUMBNAIL, THUMBNAIL), Image.Resampling.LANCZOS)
            shown.save(path.with_suffix(".jpg"), quality=85)
            picture.unlink()


def square(page: Canvas, whole: dict[str, float]) -> dict[str, float]:
    """The largest square of what is shown of the graph, with our node as near to its middle as that allows."""
    x, y = page.page.evaluate(
        """() => {
            const {ds, canvas} = app.canvas, at = canvas.getBoundingClientRect();
            const [x, y, width, height] = app.graph.nodes.find(({type}) => type.startsWith("Lyco")).boundingRect;
            return [
                at.left + (x + width / 2 + ds.offset[0]) * ds.scale,
                at.top + (y + height / 2 + ds.offset[1]) * ds.scale,
            ];
        }"""
    )
    side = min(whole["width"], whole["height"])
    left = min(max(x - side / 2, whole["x"]), whole["x"] + whole["width"] - side)
    top = min(max(y - side / 2, whole["y"]), whole["y"] + whole["height"] - side)
    return box(left, top, side, side)


def furnish(server: Server) -> None:
    """Files and folders of the names that the examples have, so that no node complains."""
    models, example = server.base / "models", ROOT / "tests" / "golden" / "z_image" / "lokr.safetensors"
    about = {"ss_network_module": "networks.lokr", "modelspec.trigger_phrase": "ukiyoe style", "ss_steps": "1600"}
    save_file(
        load_file(example), models / "loras" / "my_lokr.safetensors", about | {"modelspec.thumbnail": thumbnail()}
    )
    save_file(load_file(example.with_name("loha.safetensors")), models / "loras" / "my_loha.safetensors")
    for path in sorted((ROOT / "examples" / "api").glob("*.json")):
        for node in json.loads(path.read_text("utf-8")).values():
            for name, folder in FOLDERS.items():
                if name in node["inputs"]:
                    (models / folder / node["inputs"][name]).parent.mkdir(parents=True, exist_ok=True)
                    (models / folder / node["inputs"][name]).touch()
            if "folder" in node["inputs"]:
                photographs(server.base / "input" / node["inputs"]["folder"])


def photographs(folder: Path) -> None:
    """A folder of pictures of several shapes, with captions."""
    folder.mkdir(exist_ok=True)
    for number in range(23):
        size = ((1280, 720), (720, 1280), (1024, 1024), (900, 700), (2000, 800))[number % 5]
        Image.new("RGB", size).save(folder / f"{number}.jpg")
        (folder / f"{number}.txt").write_text("a picture")


def fit(page: Canvas) -> dict[str, float]:
    """Show the whole graph below what lies over the canvas; where on the page it is."""
    left, top, width, height = page.page.evaluate(
        """() => {
            const boxes = app.graph.nodes.map((node) => node.boundingRect);
            const [left, top] = [0, 1].map((i) => Math.min(...boxes.map((b) => b[i])) - 24);
            const [right, bottom] = [0, 1].map((i) => Math.max(...boxes.map((b) => b[i] + b[i + 2])) + 24);
            const [x, y] = [80, 100], {clientWidth, clientHeight} = app.canvas.canvas;
            const scale = Math.min((clientWidth - x) / (right - left), (clientHeight - y) / (bottom - top), 1);
            app.canvas.ds.scale = scale;
            app.canvas.ds.offset = [x / scale - left, y / scale - top];
            app.canvas.setDirty(true, true);
            const at = app.canvas.canvas.getBoundingClientRect();
            return [at.left + x, at.top + y, (right - left) * scale, (bottom - top) * scale];
        }"""
    )
    page.page.wait_for_timeout(800)
    return box(left, top, width, height)


def readme(server: Server) -> None:
    """docs/images: a run that matched in part, and a training, in English and in Japanese."""
    for locale in ("en", "ja"):
        with opened(server, (1320, 900), VueNodes_Enabled=True, Locale=locale) as page:
            model = page.add("UNETLoader", 80, 150, unet_name="wan.safetensors")
            whole = page.add("LycoLoadAdapter", 380, 150, adapter="my_lokr.safetensors")
            half = page.add("LycoLoadAdapter", 800, 150, adapter="half.safetensors", on_partial_match="warn")
            text = page.add("PreviewAny", 80, 450)
            for source, output, target, name in ((model, 0, whole, "model"), (whole, 0, half, "model")):
                page.connect(source, output, target, name)
            page.connect(half, 2, text, "source")
            resize(page, whole, half)
            page.run()
            page.page.locator(".lyco-match").nth(1).wait_for()
            page.page.wait_for_timeout(6000)  # until ComfyUI's own message is gone
            page.page.screenshot(path=ROOT / "docs" / "images" / f"load-{locale}.png", clip=box(60, 100, 1180, 590))
            page.clear()
            model = page.add("UNETLoader", 80, 150, unet_name="wan.safetensors")
            items = page.add("ProbeItems", 80, 300, width=TEXT, count=3, captions=3, size=8)
            train = page.add("LycoTrainAdapter", 480, 150, max_train_steps=160, learning_rate=0.01, network_dim=8)
            page.connect(model, 0, train, "model")
            page.connect(items, 0, train, "latents")
            page.connect(items, 1, train, "positive")
            resize(page, train)
            page.run()
            page.page.locator(".lyco-line b").first.wait_for(timeout=60_000)
            page.page.wait_for_function(
                "parseInt(document.querySelector('.lyco-line b').innerText) > 90", timeout=400_000
            )
            page.page.screenshot(path=ROOT / "docs" / "images" / f"train-{locale}.png", clip=box(470, 104, 420, 790))
            server.post("/interrupt", {})
            page.page.wait_for_timeout(2000)


def blocks(server: Server) -> None:
    """docs/images: the blocks of a file, some of them turned down, in English and in Japanese."""
    many_blocks(server.base / "models" / "loras" / "my_lora.safetensors")
    strengths = "double_blocks\\.[0-5]\\..*=0.5\nsingle_blocks\\.(2[6-9]|3[0-7])\\..*=0.25"
    for locale in ("en", "ja"):
        with opened(server, (1000, 1000), VueNodes_Enabled=True, Locale=locale) as page:
            node = page.add("LycoLoadAdapter", 160, 120, adapter="my_lora.safetensors", block_strengths=strengths)
            resize(page, node)
            page.page.locator(".lyco-blocks-fold > button").click()
            page.page.locator(".lyco-turned").first.wait_for()
            page.page.mouse.move(0, 0)
            page.page.wait_for_timeout(1500)
            page.page.locator(f'[data-node-id="{node}"]').screenshot(
                path=ROOT / "docs" / "images" / f"blocks-{locale}.png"
            )


def resize(page: Canvas, *ids: int) -> None:
    """Make nodes as high as what they show."""
    page.page.evaluate("ids => ids.forEach((id) => app.graph.getNodeById(id).setSize([400, 60]))", list(ids))


def box(x: float, y: float, width: float, height: float) -> dict[str, float]:
    """A part of the page."""
    return {"x": x, "y": y, "width": width, "height": height}


def main() -> None:
    """Take them all, or those that are named: nodes, thumbnails, readme, blocks."""
    comfyui = find_comfyui()
    assert comfyui is not None, "no ComfyUI found"
    packs = {"comfyui-lyco": ROOT, "probes": ROOT / "tests" / "host" / "probes"}
    with tempfile.TemporaryDirectory() as folder, running_server(comfyui, Path(folder), packs) as server:
        for kind in (nodes, thumbnails, readme, blocks):
            if len(sys.argv) == 1 or kind.__name__ in sys.argv[1:]:
                fill(server)
                kind(server)


if __name__ == "__main__":
    main()
