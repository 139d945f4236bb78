"""A real ComfyUI: finding it, importing from it, starting its server. Nothing of it is replaced."""

import contextlib
import importlib.metadata
import importlib.util
import json
import os
import re
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
import warnings
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

ROOT = Path(__file__).parents[3]
HOW_TO_GET_ONE = "no ComfyUI found: set COMFYUI_PATH, or `pip install comfy-cli && comfy install`; see DEVELOPERS.md"


def find_comfyui() -> Path | None:
    """$COMFYUI_PATH, else the one whose custom_nodes we lie in, else comfy-cli's default workspace."""
    if named := os.environ.get("COMFYUI_PATH"):
        return Path(named)
    for folder in (ROOT.parent.parent, Path.home() / "comfy" / "ComfyUI"):
        if (folder / "comfyui_version.py").exists():
            return folder
    return None


def why_not(comfyui: Path | None) -> str | None:
    """Why no ComfyUI can run here, in one line, or None if one can."""
    if comfyui is None:
        return HOW_TO_GET_ONE
    if not (comfyui / "main.py").exists():
        return f"there is no main.py in {comfyui}; set COMFYUI_PATH to a ComfyUI"
    needed = [
        "torchvision",
        "torchaudio",
        "torchsde",
        "aiohttp",
        "transformers",
        "av",
        "alembic",
        "comfyui_frontend_package",
    ]
    lacking = [name for name in needed if importlib.util.find_spec(name) is None]
    if lacking:
        return f"ComfyUI needs {', '.join(lacking)}: pip install -r {comfyui}/requirements.txt"
    return None


def why_no_server(comfyui: Path | None) -> str | None:
    """Why this ComfyUI's server cannot start with the packages that are here, in one line, or None if it can."""
    name = "comfyui-workflow-templates"
    pins = re.findall(rf"^{name}==(.+)$", (comfyui / "requirements.txt").read_text(), re.MULTILINE) if comfyui else []
    here = importlib.metadata.version(name)
    if not pins or pins[0].split(".")[:2] == here.split(".")[:2]:
        return None
    return f"the server of {comfyui} needs {name} {pins[0]}, and here is {here}: put what it pins on PYTHONPATH"


def import_comfyui(comfyui: Path) -> None:
    """Make `comfy` importable in this process, on the CPU. It comes before our own `nodes` folder."""
    sys.path.insert(0, str(comfyui))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from comfy.cli_args import args

        args.cpu = True


def import_pack() -> ModuleType:
    """The pack, imported as ComfyUI imports it: under a name that is no identifier."""
    name = str(ROOT).replace(".", "_x_")
    if name not in sys.modules:
        spec = importlib.util.spec_from_file_location(name, ROOT / "__init__.py")
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module
        spec.loader.exec_module(module)
    return sys.modules[name]


class WorkflowError(Exception):
    """What the server answered to a workflow that it refused or that failed."""


class Server:
    """A running ComfyUI with the pack in its custom_nodes, and folders of its own."""

    def __init__(self, base: Path, port: int) -> None:
        self.base = base
        self.address = f"http://127.0.0.1:{port}"

    def get(self, path: str) -> Any:
        with urllib.request.urlopen(self.address + path, timeout=60) as answer:
            return json.load(answer)

    def post(self, path: str, body: object) -> Any:
        data = json.dumps(body).encode()
        request = urllib.request.Request(self.address + path, data, {"Content-Type": "application/json"})
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                return json.loads(answer.read() or b"null")
        except urllib.error.HTTPError as error:
            raise WorkflowError(error.read().decode()) from None

    def run(self, workflow: dict[str, Any], seconds: float = 600) -> dict[str, Any]:
        """Queue a workflow in API form, wait for it, and return its outputs by node."""
        prompt = self.post("/prompt", {"prompt": workflow})["prompt_id"]
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            history = self.get(f"/history/{prompt}")
            if prompt in history:
                return _outcome(history[prompt])
            time.sleep(0.05)
        raise TimeoutError(f"the workflow took over {seconds} s")


def _outcome(entry: dict[str, Any]) -> dict[str, Any]:
    for kind, message in entry["status"]["messages"]:
        if kind == "execution_error":
            raise WorkflowError(f"{message['exception_type']}: {message['exception_message']}")
    return entry["outputs"]


@contextlib.contextmanager
def running_server(comfyui: Path, base: Path, packs: dict[str, Path]) -> Iterator[Server]:
    """Start ComfyUI with `base` as its folders and `packs` (name -> folder) linked into custom_nodes."""
    for folder in ("custom_nodes", "models/loras", "models/diffusion_models", "input", "output", "user", "temp"):
        (base / folder).mkdir(parents=True, exist_ok=True)
    for name, folder in packs.items():  # a pack can also have been put there before
        (base / "custom_nodes" / name).symlink_to(folder)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    log = base / "server.log"
    command = [sys.executable, "main.py", "--cpu", "--port", str(port), "--base-directory", str(base)]
    command += ["--database-url", "sqlite:///:memory:"]
    if frontend := os.environ.get("LYCO_FRONTEND"):  # a folder that `pip install --target` has filled
        command += ["--front-end-root", str(Path(frontend) / "comfyui_frontend_package" / "static")]
    environment = os.environ | {"PYTHONWARNINGS": "default"}
    with log.open("w") as out:
        process = subprocess.Popen(command, cwd=comfyui, stdout=out, stderr=out, env=environment)
    try:
        server = Server(base, port)
        _wait(server, process, log)
        yield server
    finally:
        process.terminate()
        process.wait(20)


def _wait(server: Server, process: subprocess.Popen[bytes], log: Path) -> None:
    for _ in range(3000):
        if process.poll() is not None:
            raise RuntimeError(f"ComfyUI stopped with {process.returncode}:\n{log.read_text()[-3000:]}")
        try:
            server.get("/system_stats")
            return
        except (OSError, ValueError):
            time.sleep(0.2)
    raise TimeoutError(f"ComfyUI did not answer:\n{log.read_text()[-3000:]}")


if __name__ == "__main__":
    print(find_comfyui() or "")
