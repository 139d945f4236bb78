"""What `pip install` of the built wheel gives: the library and the command, without ComfyUI and without this folder."""

import importlib.metadata
import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from lyco_testing.comfy import ROOT
from lyco_testing.library_files import python_in, write_library_files

from lyco_core import __version__


def pip(*words: str | Path) -> None:
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--no-cache-dir", *map(str, words)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def version(package: str) -> tuple[int, ...]:
    """Its first two numbers; none where it is not installed."""
    try:
        return tuple(map(int, importlib.metadata.version(package).split(".")[:2]))
    except importlib.metadata.PackageNotFoundError:
        return ()


def require_build_tools() -> None:
    """What pyproject.toml builds with, here already: nothing is fetched."""
    if not version("pip"):
        pytest.skip("there is no pip")
    if version("setuptools") < (70, 1) and not (version("setuptools") and version("wheel")):
        pytest.skip("there is no setuptools that builds a wheel: pip install 'setuptools>=70.1'")


def copy_source(to: Path) -> None:
    for name in ("pyproject.toml", "setup.py", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, to)
    shutil.copytree(ROOT / "lyco_core", to / "lyco_core", ignore=shutil.ignore_patterns("__pycache__"))


def build(source: Path, built: Path) -> Path:
    pip("wheel", "--no-deps", "--no-index", "--no-build-isolation", "--wheel-dir", built, source)
    (made,) = built.glob("*.whl")
    return made


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    require_build_tools()
    source = tmp_path_factory.mktemp("source")
    copy_source(source)
    return build(source, tmp_path_factory.mktemp("built"))


def test_a_second_build_packs_no_module_that_is_gone(tmp_path: Path):
    require_build_tools()
    copy_source(tmp_path)
    (tmp_path / "lyco_core" / "gone.py").touch()
    build(tmp_path, tmp_path / "first")
    (tmp_path / "lyco_core" / "gone.py").unlink()
    with zipfile.ZipFile(build(tmp_path, tmp_path / "second")) as file:
        assert "lyco_core/version.py" in file.namelist()
        assert "lyco_core/gone.py" not in file.namelist()


def test_it_holds_the_library_alone(wheel: Path):
    with zipfile.ZipFile(wheel) as file:
        names = file.namelist()
        metadata = file.read(next(name for name in names if name.endswith("/METADATA"))).decode()
        commands = file.read(next(name for name in names if name.endswith("/entry_points.txt"))).decode()
    assert {name.split("/")[0].split("-")[0] for name in names} == {"lyco_core", "comfyui_lyco"}
    ours = {path.relative_to(ROOT).as_posix() for path in (ROOT / "lyco_core").rglob("*") if path.suffix == ".py"}
    assert ours | {"lyco_core/py.typed"} == {name for name in names if name.startswith("lyco_core/")}
    needed = {line for line in re.findall("^Requires-Dist: (.*)$", metadata, re.MULTILINE) if "extra ==" not in line}
    assert needed == {"torch", "numpy"}
    assert f"\nVersion: {__version__}\n" in metadata
    assert "lyco = lyco_core.cli:main" in commands


def test_the_readmes_lines_run_with_it(wheel: Path, tmp_path: Path):
    pip("install", "--no-deps", "--no-index", "--target", tmp_path / "site", wheel)
    work = tmp_path / "work"
    work.mkdir()
    write_library_files(work)
    program = python_in(ROOT / "README.md") + (
        "import sys\n"
        "print(lyco.__file__)\n"
        "print([name for name in sys.modules if name.split('.')[0] in ('comfy', 'comfy_api', 'nodes', 'lyco_testing')])"
    )
    environment = os.environ | {"PYTHONPATH": str(tmp_path / "site")}

    def run(*words: str) -> str:
        done = subprocess.run([sys.executable, *words], cwd=work, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout

    *_, where, others = run("-c", program).splitlines()
    assert Path(where).samefile(tmp_path / "site" / "lyco_core" / "__init__.py")
    assert others == "[]"
    assert "LoHa" in run("-m", "lyco_core", "inspect", "my_loha.safetensors")
