"""ComfyUI-Manager finds the pack of a workflow's unknown nodes by ids that it reads in the source, without running it.

Of each repository it reads every .py file that is not in a hidden folder, its tests too.
"""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest
from lyco_testing.comfy import ROOT
from lyco_testing.nodes import node_ids


def sources() -> Iterator[Path]:
    built = {"build", "node_modules"}
    for path in ROOT.rglob("*.py"):
        folders = path.relative_to(ROOT).parts[:-1]
        if not any(folder.startswith(".") or folder in built for folder in folders):
            yield path


def last_name(expression: ast.expr) -> str | None:
    """`Schema` of `io.Schema` and of `Schema`."""
    return getattr(expression, "attr", getattr(expression, "id", None))


def id_of(node: ast.ClassDef) -> str:
    """What `io.Schema(node_id="…")` in `define_schema` says, or the class's name, for which a reader takes it else."""
    schemas = [
        call
        for method in node.body
        if isinstance(method, ast.FunctionDef) and method.name == "define_schema"
        for call in ast.walk(method)
        if isinstance(call, ast.Call) and last_name(call.func) == "Schema"
    ]
    ids = [named.value for call in schemas for named in call.keywords if named.arg == "node_id"]
    return next((value.value for value in ids if isinstance(value, ast.Constant)), node.name)


OLDER = ("_CLASS_" + "MAPPINGS", "@register_" + "node")
"""What older kinds of nodes are registered with. Readers search the text for it: it stands nowhere, not even here."""


def claimed(source: str) -> list[str]:
    """The ids that a reader finds in a file."""
    classes = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.ClassDef)]
    nodes = [id_of(node) for node in classes if any(last_name(base) == "ComfyNode" for base in node.bases)]
    return nodes + [word for word in OLDER if word in source]


def test_a_reader_of_the_source_finds_the_nodes_and_nothing_else():
    found = [(name, path) for path in sources() for name in claimed(path.read_text("utf-8"))]
    assert {name for name, _ in found} == {*node_ids()}, found
    assert len(found) == len(node_ids())


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ('class A(io.ComfyNode):\n def define_schema(cls): return io.Schema(node_id="Id")', ["Id"]),
        ('class A(io.ComfyNode):\n def define_schema(cls): return make(io.Schema, node_id="Id")', ["A"]),
        ("class A(ComfyNode):\n def define_schema(cls): return io.Schema(node_id=ID)", ["A"]),
        (f'NODE{OLDER[0]} = {{"A": A}}', [OLDER[0]]),
        ("class A(Node): ...", []),
    ],
)
def test_what_a_reader_takes_for_a_node(source: str, found: list[str]):
    assert claimed(source) == found
