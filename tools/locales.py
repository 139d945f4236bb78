"""Writes locales/en/nodeDefs.json: what the nodes' schemas say, as a running ComfyUI tells it.

    python tools/locales.py

The other languages are written by hand; tests/host/test_locales.py says what they lack.
"""

import json
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "support")]

from lyco_testing.comfy import find_comfyui, running_server  # noqa: E402
from lyco_testing.locales import LOCALES, english  # noqa: E402


def main() -> None:
    """Start a server, ask it, write the file."""
    comfyui = find_comfyui()
    assert comfyui is not None, "no ComfyUI found"
    packs = {"comfyui-lyco": ROOT}
    with tempfile.TemporaryDirectory() as folder, running_server(comfyui, Path(folder), packs) as server:
        told = english(server.get("/object_info"))
    path = LOCALES / "en" / "nodeDefs.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(told, ensure_ascii=False, indent=2) + "\n", "utf-8")


if __name__ == "__main__":
    main()
