"""The pack as people get it: copied, cloned, and as the registry's package, each in a ComfyUI of its own."""

import json
import os
import shutil
import subprocess
import sys
import urllib.error
import urllib.request
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from lyco_testing.comfy import ROOT, find_comfyui, running_server
from lyco_testing.nodes import node_ids
from lyco_testing.tiny_wan import wan_adapter
from safetensors.torch import save_file

needs_git = pytest.mark.skipif(
    not (ROOT / ".git").exists() or shutil.which("git") is None, reason="this folder is no git repository"
)


def git(*words: str, cwd: Path = ROOT) -> str:
    return subprocess.run(["git", *words], cwd=cwd, check=True, capture_output=True, text=True).stdout


def copied(to: Path) -> None:
    """The folder as it lies here."""
    shutil.copytree(ROOT, to, ignore=shutil.ignore_patterns(".git", ".venv", "build", "node_modules", "__pycache__"))


def cloned(to: Path) -> None:
    git("clone", "--quiet", "--depth", "1", f"file://{ROOT}", str(to))


def comfy(*words: str, cwd: Path, home: Path) -> str:
    """Run comfy-cli, which keeps its settings in `home` and tells nobody."""
    pytest.importorskip("comfy_cli", reason="comfy-cli is not installed: pip install it")
    quiet = ["--skip-prompt", "--no-enable-telemetry"]
    environment = os.environ | {"HOME": str(home), "XDG_CONFIG_HOME": str(home), "DO_NOT_TRACK": "1", "COLUMNS": "500"}
    command = [sys.executable, "-W", "ignore", "-m", "comfy_cli", *quiet, *words]
    done = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def packaged(to: Path) -> None:
    """What `comfy node pack` puts into the registry's zip."""
    clone = to.parent.parent / "clone"
    cloned(clone)
    comfy("node", "pack", cwd=clone, home=clone.parent)
    zipfile.ZipFile(clone / "node.zip").extractall(to)
    assert not (to / "tests").exists()
    assert not (to / "Makefile").exists()
    assert all(
        (to / folder).is_dir() for folder in ("lyco_core", "web/docs", "example_workflows", "subgraphs", "locales")
    )


@needs_git
def test_the_registry_would_take_it(tmp_path: Path):
    cloned(tmp_path / "clone")
    said = comfy("node", "validate", cwd=tmp_path / "clone", home=tmp_path)
    assert "All validation checks passed" in said
    assert "warning" not in said.lower()


@pytest.mark.parametrize(
    ("install", "folder"),
    [
        pytest.param(copied, "comfyui-lyco", id="copied"),
        pytest.param(cloned, "lyco.main-2", id="cloned", marks=needs_git),
        pytest.param(packaged, "ComfyUI_LyCO", id="packaged", marks=needs_git),
    ],
)
def test_an_installed_pack_works(install: Callable[[Path], None], folder: str, tmp_path: Path):
    comfyui = find_comfyui()
    assert comfyui is not None
    (tmp_path / "custom_nodes").mkdir()
    install(tmp_path / "custom_nodes" / folder)
    with running_server(comfyui, tmp_path, {}) as server:
        save_file(wan_adapter(), tmp_path / "models" / "loras" / "mine.safetensors")
        known = server.get("/object_info")
        own = f"custom_nodes.{folder}"
        assert {node for node, info in known.items() if info["python_module"] == own} == {*node_ids()}
        pages = [path for path in server.get("/extensions") if path.endswith("/lyco.js")]
        assert pages == [f"/extensions/{folder}/lyco.js"]
        for path in ("lyco.js", "cards.mjs", "lyco.css", "docs/LycoLoadAdapter.md"):
            with urllib.request.urlopen(f"{server.address}/extensions/{folder}/{path}") as answer:
                assert answer.status == 200
                assert not path.endswith("js") or "javascript" in answer.headers["Content-Type"]
        assert server.get("/lyco/inspect?adapter=mine.safetensors")["modules"] == 20
        node = {"class_type": "LycoInspectAdapter", "inputs": {"adapter": "mine.safetensors"}}
        assert "Wan 2.1/2.2" in server.run({"1": node})["1"]["text"][0]
    log = (tmp_path / "server.log").read_text("utf-8", "replace")
    assert "IMPORT FAILED" not in log
    assert "Traceback" not in log


def links(place: Path, *folders: str) -> None:
    (place / "custom_nodes").mkdir()
    for folder in folders:
        (place / "custom_nodes" / folder).symlink_to(ROOT)


def test_a_folder_that_comfyui_serves_nothing_of_is_told(tmp_path: Path):
    comfyui = find_comfyui()
    assert comfyui is not None
    links(tmp_path, "comfyui lyco ロコ")
    with running_server(comfyui, tmp_path, {}) as server:
        assert {*node_ids()} <= server.get("/object_info").keys()
        (page,) = [path for path in server.get("/extensions") if path.endswith("/lyco.js")]
        with pytest.raises(urllib.error.HTTPError, match="404"):
            server.get(page)
    log = (tmp_path / "server.log").read_text("utf-8", "replace")
    assert log.count("rename the folder, to comfyui-lyco for example") == 1


def test_of_two_copies_one_counts_and_says_so(tmp_path: Path):
    comfyui = find_comfyui()
    assert comfyui is not None
    folders = ("comfyui-lyco", "comfyui-lyco-main")
    links(tmp_path, *folders)
    with running_server(comfyui, tmp_path, {}) as server:
        known = server.get("/object_info")
        (counts,) = {known[node]["python_module"].removeprefix("custom_nodes.") for node in node_ids()}
        pages = [path for path in server.get("/extensions") if path.endswith("/lyco.js")]
        assert pages == [f"/extensions/{counts}/lyco.js"]
        assert server.get("/lyco/training") == {}
    log = (tmp_path / "server.log").read_text("utf-8", "replace")
    (line,) = [line for line in log.splitlines() if "this pack is there twice" in line]
    (other,) = {*folders} - {counts}
    assert f"{tmp_path / 'custom_nodes' / counts} counts, and {tmp_path / 'custom_nodes' / other}, which" in line
    assert "Traceback" not in log


GUARDED = {
    "in_training": "getattr with a default; older ones have no such switch",
    "uncast_bias_weight": "getattr with a default; older ones do not lend weights",
    "IMG_TO_IMG_FLOW": "getattr with a default; older ones have no such models",
}
"""What only newer ComfyUIs have, and how the pack does without."""


def test_everything_of_comfyui_that_is_used_is_there(tmp_path: Path):
    """comfy-import-guard: every name of `comfy` that the pack uses, and how it calls it, against this ComfyUI."""
    pytest.importorskip("comfy_import_guard", reason="comfy-import-guard is not installed: pip install it")
    comfyui, clone, pack = (
        find_comfyui(),
        tmp_path / "cache" / "ComfyUI",
        tmp_path / "install" / "custom_nodes" / "lyco",
    )
    assert comfyui is not None
    # The guard reads a git repository; the ComfyUI that the tests run in need not be one.
    clone.mkdir(parents=True)
    git("init", "--quiet", cwd=clone)
    where = ("--work-tree", str(comfyui))
    folders = [name for name in ("comfy", "comfy_extras", "comfy_api", "comfy_execution") if (comfyui / name).exists()]
    git(*where, "add", "--force", *folders, *(path.name for path in comfyui.glob("*.py")), cwd=clone)
    git(
        *where,
        "-c",
        "user.name=test",
        "-c",
        "user.email=test@example.org",
        "commit",
        "--quiet",
        "-m",
        "as it is",
        cwd=clone,
    )
    git("reset", "--quiet", "--hard", cwd=clone)
    copied(pack)
    command = "from comfy_import_guard.cli import main; import sys; sys.exit(main(sys.argv[1:]))"
    options = ["--json", "check", "--comfy-dir", str(tmp_path / "install"), "--cache-dir", str(clone.parent)]
    options += ["--offline", "--no-update", "--target", "HEAD"]
    done = subprocess.run([sys.executable, "-c", command, *options], capture_output=True, text=True)
    (found,) = json.loads(done.stdout)["packs"]
    assert found["references"] > 50  # it did read the pack
    assert found["unparseable"] == found["signature_drift"] == []
    assert {entry["symbol"] for entry in found["breaking"]} <= GUARDED.keys()
