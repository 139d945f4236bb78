"""How high the pack's nodes are on a page."""

from lyco_testing.page import Canvas

OURS = 'app.canvas.graph.nodes.filter((node) => node.comfyClass?.startsWith("Lyco"))'

GAPS = f"""() => {OURS}.map((node) => {{
    const drawn = document.querySelector(`.lg-node[data-node-id="${{node.id}}"]`);
    if (!drawn) return node.size[1] - node.computeSize()[1];
    const style = drawn.getAttribute("style"), height = drawn.offsetHeight;
    drawn.style.setProperty("--node-height", "0px");
    const needed = drawn.offsetHeight;
    drawn.setAttribute("style", style);
    return height - needed;
}})"""
"""How much higher each node is than what is in it."""


def at_rest(page: Canvas) -> None:
    """Wait until no node moves any more."""
    page.page.evaluate(
        f"""async () => {{
            const seen = () => JSON.stringify([document.querySelectorAll(".lyco-file").length, {OURS}.map((node) => [
                ...node.size, document.querySelector(`[data-node-id="${{node.id}}"]`)?.offsetHeight])]);
            for (let last = "", now = seen(), same = 0; same < 5; last = now, now = seen()) {{
                same = now === last ? same + 1 : 0;
                await new Promise((done) => setTimeout(done, 100));
            }}
        }}"""
    )
