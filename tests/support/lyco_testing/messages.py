"""What an error that stops a node can say: the texts of every `raise` that a node can reach, as the source has them.

The page knows a message again by such a template, and says it in the person's language (`web/messages.json`), as far as
it can be told: a text that is put together of others stays in English where none of them is a template.
"""

from __future__ import annotations

import ast
import functools
import itertools
import json
import re
from collections.abc import Iterator

import lyco_core.errors
from lyco_testing.rooms import ROOT, modules

CATALOGUE = ROOT / "web" / "messages.json"
"""Kind -> template -> the same in each language of LANGUAGES; of a message, what to do on the first of two lines."""

LANGUAGES = ("ja", "zh")

ERRORS = {name for name in lyco_core.errors.__all__ if name.endswith("Error")}

HEADLESS = (
    "nodes/host/training/encoders",
    "nodes/host/training/encoding",
    "nodes/host/training/first_frames",
    "nodes/host/training/cache",
    "nodes/host/training/media",
)
"""What only `lyco train` runs."""


def reached() -> set[str]:
    """The modules that a node imports, and those that these import."""
    imports = modules()
    found: set[str] = set()
    left = [name for name in imports if name.startswith("nodes/") and name.count("/") == 1]
    left = [name for name in left if name not in ("nodes/headless", "nodes/__init__")]
    while left:
        name = left.pop()
        if name not in found and name not in HEADLESS:
            found.add(name)
            left += imports[name]
    return found - {"lyco_core/__init__"}


@functools.cache
def raised() -> dict[str, str]:
    """Template -> where it is raised."""
    return {text: place for name in sorted(reached()) for text, place in _raised(name)}


@functools.cache
def written() -> set[str]:
    """Every template in those modules, whatever it is for: messages are put together of them too."""
    trees = [_tree(name) for name in reached()]
    return {text for tree in trees for node in ast.walk(tree) for text in _texts(node, {})}


def advised() -> set[str]:
    """What is said to do about an error, in the words of a node, or of the core where the node has none."""
    remedies = [node for node in ast.walk(_tree("lyco_core/errors")) if isinstance(node, ast.ClassDef)]
    classes = [node for node in remedies if node.name == "Remedy"]
    values = [value for node in classes for named in _assigned(node).values() for value in named]
    nodes = [node for node in ast.walk(_tree("nodes/host/advice")) if isinstance(node, ast.Dict)]
    values += [value for node in nodes for value in node.values]
    return {text.replace("{}", "{0}") for value in values for text in _texts(value, {})}


def catalogue() -> dict[str, dict[str, dict[str, str]]]:
    """The file as it is."""
    return json.loads(CATALOGUE.read_text("utf-8"))


def current() -> dict[str, list[str]]:
    """What the file has to hold, and what it holds that messages are put together of."""
    more = catalogue()["messages"].keys() & written()
    return {"advice": sorted(advised()), "messages": sorted(raised().keys() | more)}


def _tree(name: str) -> ast.Module:
    return ast.parse((ROOT / f"{name}.py").read_text("utf-8"))


def _raised(name: str) -> Iterator[tuple[str, str]]:
    tree = _tree(name)
    functions = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
    for scope in (tree, *functions):
        named = _assigned(scope)
        for node in ast.walk(scope):
            if isinstance(node, ast.Call) and node.args and ast.unparse(node.func).split(".")[-1] in ERRORS:
                yield from ((text, f"{name}.py:{node.lineno}") for text in _texts(node.args[0], named) if _says(text))


def _assigned(scope: ast.AST) -> dict[str, list[ast.expr]]:
    """What the names of a function, or of a module, stand for."""
    found: dict[str, list[ast.expr]] = {}
    for node in ast.walk(scope):
        if isinstance(node, ast.Assign):
            for target in node.targets:
                found.setdefault(ast.unparse(target), []).append(node.value)
    return found


def _texts(node: ast.AST, named: dict[str, list[ast.expr]]) -> Iterator[str]:
    """The templates that an expression can be: `{0}`, `{1}` and so on stand for what is put in."""
    for text in _parts(node, named):
        numbers = itertools.count()
        yield "".join(f"{{{next(numbers)}}}" if part is None else part for part in text)


def _parts(node: ast.AST, named: dict[str, list[ast.expr]]) -> Iterator[list[str | None]]:
    match node:
        case ast.Constant(value=str(text)):
            yield [text]
        case ast.JoinedStr(values=values):
            yield [part.value if isinstance(part, ast.Constant) else None for part in values]
        case ast.IfExp(body=body, orelse=orelse):
            yield from itertools.chain(_parts(body, named), _parts(orelse, named))
        case ast.BinOp(left=left, op=ast.Add(), right=right):
            for one, other in itertools.product(_parts(left, named), _parts(right, named)):
                yield one + other
        case ast.Name(id=name) if name in named:
            for value in named[name]:
                yield from _parts(value, {})
        case _:
            return


def _says(text: str) -> bool:
    """Whether it has words of its own."""
    return any(part.strip(" :;,()") for part in _between(text))


def _between(text: str) -> list[str]:
    return re.split(r"\{\d+\}", text)
