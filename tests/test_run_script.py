"""`examples/run.py` where there is no ComfyUI, or nothing that could run in one; what runs, tests/host has."""

import json
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[1] / "examples"
API = EXAMPLES / "api" / "inspect_an_adapter.json"
NOBODY = "http://127.0.0.1:9"  # the port of `discard`, at which nothing listens


def run(*arguments: object, status: int = 1) -> str:
    """What it says on standard error, or on standard output if it ends well."""
    command = [sys.executable, "-I", str(EXAMPLES / "run.py"), *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == status, done.stderr
    assert "Traceback" not in done.stderr
    return done.stderr if status else done.stdout


def test_help_and_no_argument():
    assert "File > Export (API)" in run("--help", status=0)
    assert "the following arguments are required: WORKFLOW.json" in run(status=2)


@pytest.mark.parametrize("address", [NOBODY, NOBODY.removeprefix("http://") + "/"])
def test_no_server(address: str):
    assert run(API, address).startswith(f"{NOBODY}: no ComfyUI answers there (")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "cannot be read: No such file"),
        ("{", "is no JSON"),
        ("[]", "is no workflow in API form"),
        ("{}", "is no workflow in API form"),
        ('{"1": {"inputs": {}}}', "is no workflow in API form"),
        (json.dumps({"nodes": [], "links": []}), "is a graph as the page saves it, expected the API form"),
    ],
)
def test_a_file_that_is_no_workflow(text: str | None, message: str, tmp_path: Path):
    path = tmp_path / "w.json"
    if text is not None:
        path.write_text(text)
    assert run(path, NOBODY).startswith(f"{path}: {message}")


def test_the_graphs_of_the_pack_are_told_from_their_api_form():
    for graph in (EXAMPLES.parent / "example_workflows").glob("*.json"):
        assert "is a graph as the page saves it" in run(graph, NOBODY)


class Elsewhere(BaseHTTPRequestHandler):
    """Some other program, which says the same whatever is asked."""

    status, said = 200, b""

    def do_POST(self) -> None:
        self.send_response(self.status)
        self.end_headers()
        self.wfile.write(self.said)

    def log_message(self, *_: object) -> None:
        pass


@pytest.mark.parametrize(
    ("status", "said", "message"),
    [
        (200, b"<html>hello</html>", "something answers there, but it is no ComfyUI"),
        (400, b"<html>hello</html>", "refuses the workflow: <html>hello</html>"),
        (422, b'{"detail": "hello"}', 'refuses the workflow: {"detail": "hello"}'),
    ],
)
def test_a_server_that_is_no_comfyui(status: int, said: bytes, message: str):
    with HTTPServer(("127.0.0.1", 0), type("Other", (Elsewhere,), {"status": status, "said": said})) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            told = run(API, f"http://127.0.0.1:{server.server_port}")
        finally:
            server.shutdown()
            thread.join()
    assert message in told
