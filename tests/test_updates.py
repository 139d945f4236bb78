"""What an update leaves behind: ComfyUI-Manager unpacks a new version over the old one, whose other files stay.

Manager 4.3 means to remove them, but an update that waits for the restart looks for them in the folder above.
"""

from collections.abc import Set
from pathlib import PurePosixPath

import pytest
from lyco_testing.comfy import ROOT

LISTED = ROOT / "tests" / "golden" / "packaged.txt"
"""What was ever packaged of what is taken although nothing names it; a line stays when its file goes."""

FOUND = ("web/**/*.js", "example_workflows/*.json", "subgraphs/*.json", "locales/*/*.json")
"""What ComfyUI finds for itself and loads, or offers."""


def taken() -> set[str]:
    """The files here that are taken although nothing names them: of these, and packages, which come before modules."""
    patterns = (*FOUND, "lyco_core/**/__init__.py", "nodes/**/__init__.py")
    return {path.relative_to(ROOT).as_posix() for pattern in patterns for path in ROOT.glob(pattern)}


def biting(once: Set[str], now: Set[str], modules: Set[str]) -> set[str]:
    """Those of the files of once that would do harm beside those of now."""
    left = {PurePosixPath(name) for name in once - now}
    packages = {path for path in left if path.name == "__init__.py"}
    hiding = {path for path in packages if f"{path.parent}.py" in modules}
    return {str(path) for path in left - packages | hiding}


def test_nothing_of_an_older_version_bites():
    once = {*LISTED.read_text("utf-8").splitlines()}
    now = taken()
    assert now <= once, f"add to {LISTED.name}, for the day when they go: {sorted(now - once)}"
    modules = {
        path.relative_to(ROOT).as_posix() for room in ("lyco_core", "nodes") for path in (ROOT / room).rglob("*.py")
    }
    bad = biting(once, now, modules)
    assert not bad, f"people who update still have them; keep what does nothing in their place: {sorted(bad)}"


@pytest.mark.parametrize(
    ("once", "now", "modules", "bad"),
    [
        ({"web/old.js"}, {"web/lyco.js"}, set(), {"web/old.js"}),
        ({"subgraphs/old.json"}, set(), set(), {"subgraphs/old.json"}),
        ({"nodes/a/__init__.py"}, set(), {"nodes/a.py"}, {"nodes/a/__init__.py"}),
        ({"nodes/a/__init__.py"}, set(), {"nodes/b.py"}, set()),
        ({"nodes/a/__init__.py"}, {"nodes/a/__init__.py"}, {"nodes/a.py"}, set()),
    ],
)
def test_what_bites(once: set[str], now: set[str], modules: set[str], bad: set[str]):
    assert biting(once, now, modules) == bad
