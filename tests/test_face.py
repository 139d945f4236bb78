"""`import lyco_core as lyco`: what it gives, and that its documentation is true."""

import ast
import pkgutil
import runpy
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest
from lyco_testing.comfy import ROOT
from lyco_testing.library_files import python_in, write_library_files

import lyco_core as lyco

FACE = [
    "Model",
    "attach",
    "combine",
    "convert",
    "delta",
    "extract",
    "inspect",
    "load",
    "merge",
    "outline",
    "resize",
    "save",
]


def test_what_it_gives():
    """One more, or another name, is a promise to whoever imports it."""
    assert lyco.__all__ == FACE
    assert sorted(lyco._FACE) == FACE
    assert set(FACE) <= set(dir(lyco))
    for name in FACE:
        module, _, found = lyco._FACE[name].partition(":")
        assert getattr(lyco, name) is getattr(import_module(f"lyco_core.{module}"), found)
        assert getattr(lyco, name).__doc__
    with pytest.raises(AttributeError, match="module 'lyco_core' has no attribute 'lora'"):
        lyco.lora  # noqa: B018


def test_type_checkers_are_told_the_same():
    (types,) = (node for node in ast.parse(Path(lyco.__file__).read_text("utf-8")).body if isinstance(node, ast.If)
                and ast.unparse(node.test) == "TYPE_CHECKING")  # fmt: skip
    told = {
        alias.asname or alias.name: f"{node.module}:{alias.name}"
        for node in types.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    assert told == lyco._FACE


def test_no_module_takes_a_name_of_it():
    """Importing a module puts it onto its package under its own name, over a function that goes by it."""
    assert {module.name for module in pkgutil.iter_modules(lyco.__path__)}.isdisjoint(FACE)


def test_torch_comes_with_the_first_name():
    program = (
        f"import sys; sys.path.insert(0, {str(ROOT)!r})\n"
        "import lyco_core as lyco\n"
        "print('torch' in sys.modules, sorted(m for m in sys.modules if m.startswith('lyco_core')))\n"
        "lyco.load\n"
        "print('torch' in sys.modules, 'lyco_core.merging' in sys.modules)\n"
    )
    said = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
    assert said == "False ['lyco_core', 'lyco_core.version']\nTrue False\n"


@pytest.mark.parametrize("page", ["README.md", "README.ja.md", "docs/library.md"])
def test_the_lines_of_the_documentation_run(page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    write_library_files(tmp_path)
    monkeypatch.chdir(tmp_path)
    lines = python_in(ROOT / page)
    assert "lyco.attach(transformer" in lines
    program = tmp_path / "lines.py"
    program.write_text(lines, encoding="utf-8")
    runpy.run_path(str(program))
    assert (tmp_path / "lora.safetensors").exists()
    assert (tmp_path / "merged.safetensors").exists()


def test_both_readmes_have_the_same_lines():
    def code(page: str) -> str:
        return ast.unparse(ast.parse(python_in(ROOT / page)))

    assert code("README.md") == code("README.ja.md")
