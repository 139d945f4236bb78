"""The rooms of the code in the order in which they may import each other: the one list behind the picture in
DEVELOPERS.md and tests/test_rooms.py. `python -m lyco_testing.rooms` prints the picture."""

from __future__ import annotations

import ast
import functools
import re
from collections.abc import Iterator
from pathlib import Path

__all__ = ["ROOMS", "Module", "modules", "picture", "rank_of", "room_of", "web_imports"]

ROOT = Path(__file__).parents[3]

ROOMS: dict[str, tuple[str, ...]] = {
    "lyco_core": (
        "version text console installed",
        "errors layouts devices scratch workers fused patterns pattern_worker exclusion",
        "io adapters blocks selection finite",
        "beside quantized modules_once on_demand pictures",
        "adapter_set",
        "formats",
        "architectures",
        "placed",
        "duplicates names own_names",
        "placement",
        "model",
        "adapter_file",
        "adapter_reader",
        "adapter_writer checkpoint_weights inspection",
        "delta_weights",
        "attachment merging approximate train card demo",
        "conversion",
        "combining",
        "comparing",
        "library commands",
        "__init__ cli",
        "__main__",
    ),
    "nodes/host": (
        "progress protocols advice lettering",
        "files grid",
        "model",
        "schema",
        "jobs training",
        "page",
        "__init__",
    ),
    "nodes": ("terminal", "headless", "*", "__init__"),
    "web": (
        "block_text.mjs comfy.mjs",
        "dom.mjs widgets.mjs words.mjs",
        "curve.mjs messages.mjs needs.mjs samples.mjs size.mjs strength.mjs strips.mjs",
        "wrong.mjs",
        "stock_copy.mjs",
        "parts.mjs",
        "fold.mjs",
        "node.mjs",
        "would_run.mjs",
        "model_file.mjs",
        "against.mjs",
        "block_panel.mjs last_output.mjs save_blocks.mjs",
        "blocks.mjs remedies.mjs train_end.mjs",
        "failure.mjs",
        "file_card.mjs train_card.mjs",
        "dataset_card.mjs",
        "row.mjs",
        "row_moves.mjs",
        "rows.mjs",
        "cards.mjs",
        "lyco.js",
    ),
}
"""Folder -> the rooms in it, files or folders, row by row: a room imports only rooms of rows above its own, and of the
folders above; those of one row know nothing of each other. `*` is every file that no other row of the folder has."""

_RANKS = {
    f"{folder}/{room}": (row, folder)
    for row, (folder, rooms) in enumerate((folder, rooms) for folder, rows in ROOMS.items() for rooms in rows)
    for room in rooms.split()
}

Module = tuple[str, ...]
"""As Python would import it from the repository's folder: ("lyco_core", "io", "header")."""


def rank_of(room: str) -> int:
    """How far down the picture a room is."""
    return _RANKS[room][0]


def room_of(path: str) -> str:
    """The room of a file or a module, by its path below the repository's folder without `.py`; the innermost one."""
    parts = path.split("/")
    above = ["/".join(parts[:length]) for length in range(len(parts), 0, -1)]
    return next((room for room in (*above, f"{above[1]}/*") if room in _RANKS), "")


@functools.cache
def modules() -> dict[str, list[str]]:
    """Every Python module of lyco_core and nodes -> the modules of ours that it imports, anywhere in it, when it runs.

    What only type checkers import is no import; but of the face, whose imports those are by name.
    """
    files = {
        path.relative_to(ROOT).with_suffix("").as_posix(): path
        for folder in ("lyco_core", "nodes")
        for path in sorted((ROOT / folder).rglob("*.py"))
    }
    return {name: sorted(set(_imports(name, path, files))) for name, path in files.items()}


def _imports(name: str, path: Path, known: dict[str, Path]) -> Iterator[str]:
    folder = name.split("/")[:-1]
    for node in _running(ast.parse(path.read_text("utf-8")), everything=name == "lyco_core/__init__"):
        if isinstance(node, ast.Import):
            named = [(alias.name.split("."), "") for alias in node.names]
        else:
            base = folder[: len(folder) + 1 - node.level] if node.level else []
            named = [([*base, *(node.module or "").split(".")], alias.name) for alias in node.names]
        for parts, attribute in named:
            module = "/".join(part for part in parts if part)
            found = (f"{module}/{attribute}", f"{module}/{attribute}/__init__", module, f"{module}/__init__")
            yield from [candidate for candidate in found if candidate in known and candidate != name][:1]


def _running(tree: ast.AST, *, everything: bool) -> Iterator[ast.Import | ast.ImportFrom]:
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            yield node
        elif isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING" and not everything:
            for other in node.orelse:
                yield from _running(other, everything=everything)
        else:
            yield from _running(node, everything=everything)


def web_imports() -> dict[str, list[str]]:
    """Every module of the web extension -> those that it imports; in comments they are types alone."""
    comments = re.compile(r"/\*.*?\*/|//[^\n]*", re.DOTALL)
    named = re.compile(r"""(?:\bfrom\s*|\bimport\s*\(?\s*)["']\./([^"']+)["']""")
    files = sorted(path for path in (ROOT / "web").iterdir() if path.suffix in (".js", ".mjs"))
    return {
        f"web/{path.name}": [f"web/{found}" for found in named.findall(comments.sub("", path.read_text("utf-8")))]
        for path in files
    }


def picture() -> str:
    """The list as DEVELOPERS.md shows it."""
    width = max(map(len, ROOMS)) + 2
    lines: list[str] = []
    for folder, rows in ROOMS.items():
        for index, rooms in enumerate(rows):
            shown = ", ".join("one file a node" if room == "*" else room.removesuffix(".mjs") for room in rooms.split())
            lines.append(f"    {folder if not index else '':{width}}{shown}")
    return "\n".join(lines)


if __name__ == "__main__":
    print(picture())
