"""What the web extension costs a page: the card of a 1 GB adapter, the page's load, the curve of a long training."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from statistics import median, quantiles

from timing import ROOT, machine

COPIES = 8
LOADS = 50
RANK = 92

CARD = """async ([id, name]) => {
    const node = app.graph.getNodeById(id);
    const begun = performance.now();
    lycoChoose(node, "adapter", name);
    const shown = () => document.querySelector(".lyco-file")?.innerText.includes(name.slice(0, 6));
    while (!shown()) await new Promise(requestAnimationFrame);
    return performance.now() - begun;
}"""

SPANS = """(() => {
    const found = (name) => performance.getEntriesByType("resource").find((entry) => entry.name.endsWith(name));
    const waited = found("/api/object_info").startTime - found("/api/extensions").responseEnd;
    return [window.comfyReady - performance.timeOrigin, waited];
})()"""

CURVE = """async (id) => {
    const api = window.comfyAPI.api.api;
    const steps = (from, count) => Array.from({length: count}, (_, i) => ({
        step: from + i, loss: 1 / Math.sqrt(from + i) + Math.random() / 9, learning_rate: 1e-4,
        validation: (from + i) % 500 ? null : 0.2,
    }));
    const send = (from, count) => api.dispatchCustomEvent("lyco.train", {
        node: String(id), total: 10000, seconds_left: 1, samples: [], unsampled: null, steps: steps(from, count),
    });
    send(1, 9900);
    await new Promise((done) => setTimeout(done, 500));
    const frames = [];
    let last = performance.now(), going = true;
    const frame = (now) => { frames.push(now - last); last = now; if (going) requestAnimationFrame(frame); };
    requestAnimationFrame(frame);
    const work = [];
    for (let from = 9901; from <= 10000; from += 5) {
        await new Promise((done) => setTimeout(done, 250));
        const begun = performance.now();
        send(from, 5);
        const queued = performance.now();
        await new Promise(requestAnimationFrame);
        work.push([queued - begun, performance.now() - begun]);
    }
    going = false;
    return [frames.slice(2), work.map(([queued]) => queued), work.map(([, drawn]) => drawn)];
}"""


def adapter(path: Path, number: int) -> float:
    """A LoRA of HunyuanVideo 1.5's 756 modules as Musubi saves it; its size in GB."""
    import torch
    from lyco_testing.tables import targets
    from safetensors.torch import save_file

    tensors: dict[str, torch.Tensor] = {}
    for module, (rows, columns) in targets("hunyuan_video_1_5").items():
        prefix = "lora_unet_" + module.replace(".", "_")
        tensors[f"{prefix}.lora_up.weight"] = torch.zeros(rows, RANK, dtype=torch.bfloat16)
        tensors[f"{prefix}.lora_down.weight"] = torch.zeros(RANK, columns, dtype=torch.bfloat16)
        tensors[f"{prefix}.alpha"] = torch.tensor(16.0, dtype=torch.bfloat16)
    save_file(tensors, path, {"ss_network_module": "networks.lora", "modelspec.title": f"big {number:02d} of many"})
    return path.stat().st_size / 1e9


def cards(server) -> None:
    """From choosing a file that nobody has asked for yet to its card on the page."""
    from lyco_testing.page import opened

    loras = server.base / "models" / "loras"
    first = loras / "big_00.safetensors"
    size = adapter(first, 0)
    for number in range(1, COPIES):
        (loras / f"big_{number:02d}.safetensors").write_bytes(first.read_bytes())  # its own file to every cache
    with opened(server) as page:
        node = page.add("LycoLoadAdapter", adapter="my_lokr.safetensors")
        page.wait("ukiyoe style")
        times = []
        for number in range(COPIES):
            name = f"big_{number:02d}.safetensors"
            page.choose(node, "adapter", "my_lokr.safetensors")
            page.wait("ukiyoe style")
            times.append(page.page.evaluate(CARD.replace("name.slice(0, 6)", "'756'"), [node, name]))
    print(
        f"card of {size:.2f} GB, 756 modules, not asked for before: median {median(times):.0f} ms, "
        f"worst {max(times):.0f} ms of {COPIES} (goal: 150 ms)"
    )


def without_web(folder: Path) -> Path:
    """The pack without its extension."""
    pack = folder / "pack"
    for name in ("lyco_core", "nodes", "locales"):
        shutil.copytree(ROOT / name, pack / name)
    shutil.copy(ROOT / "__init__.py", pack)
    return pack


def loads(server, plain) -> None:
    """The page's load from a server with the extension and from one whose pack has no `web`, in turns.

    A page's load varies by far more than the extension costs: neighbours are compared, many times, and beside the whole
    load the span in which ComfyUI waits for extensions, from their list to its question for nodes.
    """
    from lyco_testing.page import opened

    times: dict[str, list[tuple[float, float]]] = {"with": [], "without": []}
    with opened(server) as page:
        for number in range(2 * LOADS + 4):
            side, source = (("with", server), ("without", plain))[number % 2]
            page.page.goto(source.address)
            page.page.wait_for_function("window.comfyReady")
            if number > 3:
                times[side].append(page.page.evaluate(SPANS))
    for index, span in enumerate(("page load", "wait for extensions")):
        sides = {side: [spans[index] for spans in several] for side, several in times.items()}
        more = [a - b for a, b in zip(sides["with"], sides["without"], strict=True)]
        low, middle, high = quantiles(more, n=4)
        print(
            f"{span}: {median(sides['with']):.0f} ms with the extension, {median(sides['without']):.0f} without; "
            f"neighbours differ by {middle:+.0f} ms ({low:+.0f} to {high:+.0f}, {LOADS} pairs; goal: +50 ms)"
        )


def curve(server) -> None:
    """The last 100 of 10,000 steps at 20 a second: the time of a message, and the frames meanwhile."""
    from lyco_testing.page import RENDERERS, opened

    for name, settings in RENDERERS.items():
        with opened(server, (1300, 1300), **settings) as page:
            node = page.add("LycoTrainAdapter", 300, 100)
            page.page.wait_for_timeout(1000)
            frames, queued, drawn = page.page.evaluate(CURVE, node)
        slow = sum(frame > 34 for frame in frames)
        print(
            f"10,000 steps, {name}: a message {median(queued):.1f} ms, drawn after {median(drawn):.1f} ms (worst "
            f"{max(drawn):.1f}); {len(frames)} frames, median {median(frames):.1f} ms, {slow} over 34 ms, "
            f"worst {max(frames):.0f} ms"
        )


def main() -> None:
    """Print all three."""
    from lyco_testing import page
    from lyco_testing.comfy import find_comfyui, running_server, why_not
    from lyco_testing.page_files import fill

    comfyui = find_comfyui()
    if reason := why_not(comfyui):
        print(reason)
        return
    assert comfyui is not None
    page.BEGIN += """
    (function wait() {
        const known = window.LiteGraph?.registered_node_types;
        if (window.app?.canvas && known?.KSampler) window.comfyReady = Date.now(); else setTimeout(wait, 2);
    })();
    """
    print(machine())
    packs = {"comfyui-lyco": ROOT}
    with (
        tempfile.TemporaryDirectory() as folder,
        running_server(comfyui, Path(folder) / "with", packs) as server,
        running_server(comfyui, Path(folder) / "without", {"comfyui-lyco": without_web(Path(folder))}) as plain,
    ):
        fill(server)
        plain.post("/settings", page.SETTINGS)
        loads(server, plain)
        cards(server)
        curve(server)


if __name__ == "__main__":
    main()
