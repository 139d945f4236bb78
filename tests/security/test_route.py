"""The routes of a running ComfyUI, asked over HTTP about whatever can lie in models/loras, and what cannot."""

import base64
import json
import os
import urllib.error
import urllib.parse
import urllib.request
from email.message import Message
from pathlib import Path

import pytest
from lyco_testing.comfy import Server
from lyco_testing.hostile import Raw, file_of, lora, packed

PNG = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\0\0\2\0\0\0\2\x08\2\0\0\0"
POLYGLOT = PNG + b"<html><script>alert(1)</script>"
MARKUP = "<img src=x onerror=alert(1)>"
GOOD = file_of(lora().items())


def ask(server: Server, route: str, query: str) -> tuple[int, Message, bytes]:
    try:
        with urllib.request.urlopen(f"{server.address}/lyco/{route}?{query}", timeout=30) as answer:
            return answer.status, answer.headers, answer.read()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.headers, error.read()


def about(server: Server, name: str) -> tuple[int, dict]:
    status, headers, body = ask(server, "inspect", f"adapter={urllib.parse.quote(name, safe='')}")
    assert headers["Content-Type"].startswith("application/json")
    assert headers["X-Content-Type-Options"] == "nosniff"
    return status, json.loads(body)


def shown(server: Server, name: str) -> tuple[int, Message, bytes]:
    return ask(server, "picture", f"adapter={urllib.parse.quote(name, safe='')}")


@pytest.fixture(scope="module")
def loras(server: Server) -> Path:
    folder = server.base / "models" / "loras"
    (server.base / "secret.safetensors").write_bytes(GOOD)
    (server.base / "secret.png").write_bytes(PNG)
    (folder / "good.safetensors").write_bytes(GOOD)
    (folder / "good.png").write_bytes(POLYGLOT)
    (folder / f"{MARKUP}.safetensors").write_bytes(file_of({f"{MARKUP}.diff": Raw()}.items(), {"name": MARKUP}))
    (folder / "line\nbreak.safetensors").write_bytes(GOOD[:-1])
    (folder / "sub").mkdir()
    (folder / "sub" / "deep.safetensors").write_bytes(GOOD)
    (folder / "linked.safetensors").symlink_to(server.base / "secret.safetensors")
    (folder / "peeping.safetensors").write_bytes(GOOD)
    (folder / "peeping.png").symlink_to(server.base / "secret.png")
    (folder / "passwd.safetensors").write_bytes(GOOD)
    (folder / "passwd.png").symlink_to("/etc/passwd")
    (folder / "gone.safetensors").symlink_to("nowhere")
    (folder / "folder.safetensors").mkdir()
    os.mkfifo(folder / "pipe.safetensors")
    (folder / "pipe.png").write_bytes(PNG)
    (folder / "waiting.safetensors").write_bytes(GOOD)
    os.mkfifo(folder / "waiting.png")
    thumbnail = "data:image/png;base64," + base64.b64encode(POLYGLOT).decode()
    (folder / "inside.safetensors").write_bytes(file_of(lora().items(), {"modelspec.thumbnail": thumbnail}))
    (folder / "odd.safetensors").write_bytes(
        file_of(lora().items(), {"modelspec.thumbnail": "data:image/png;base64,é"})
    )
    (folder / "rescale.safetensors").write_bytes(file_of({"lora_unet_x.rescale": Raw()}.items()))
    (folder / "large.safetensors").write_bytes(packed("{" + " " * 2**24 + "}"))
    (folder / "kinds.safetensors").write_bytes(
        file_of({f"diffusion_model.k{n}x.1.diff": Raw() for n in range(3000)}.items())
    )
    return folder


OUTSIDE = (
    "../../secret.safetensors",
    "sub/../good.safetensors",
    "./good.safetensors",
    "/etc/passwd",
    "good.png",
    "good.safetensors\0.png",
    "C:\\good.safetensors",
    "..\\..\\secret.safetensors",
    "",
    MARKUP,
    "a" * 3000,
    "folder.safetensors",
)


@pytest.mark.parametrize("name", OUTSIDE)
def test_only_what_the_loaders_list(name: str, server: Server, loras: Path):
    assert about(server, name) == (404, {"error": "there is no such file in models/loras"})
    status, _, body = shown(server, name)
    assert (status, body) == (404, b"")


@pytest.mark.parametrize("query", ["", "adapter", "other=good.safetensors", "adapter=nothing&adapter=good.safetensors"])
def test_other_questions(query: str, server: Server, loras: Path):
    for route in ("inspect", "picture"):
        assert ask(server, route, query)[0] == 404


def test_what_is_listed_is_told(server: Server, loras: Path):
    for name in ("good.safetensors", "sub/deep.safetensors", "linked.safetensors"):
        status, card = about(server, name)
        assert status == 200
        assert card["modules"] == 1


REFUSED = {
    "line\nbreak.safetensors": "line\\nbreak.safetensors: is cut off",
    "gone.safetensors": "there is no such file",
    "pipe.safetensors": "there is no such file",
    "rescale.safetensors": "rescale.safetensors: lora_unet_x: oft_blocks missing",
    "large.safetensors": "its header is 16777218 bytes, a card is drawn of at most 16777216",
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused_in_a_line(name: str, server: Server, loras: Path):
    status, answer = about(server, name)
    assert status == 422
    assert REFUSED[name] in answer["error"]
    assert answer["error"].isprintable()
    assert shown(server, name)[0] in (204, 404)


def test_cards_of_bounded_size(server: Server, loras: Path):
    status, card = about(server, "kinds.safetensors")
    assert (status, card["modules"]) == (200, 3000)
    assert len(card["blocks"]) <= 33


def test_markup_is_text_in_json(server: Server, loras: Path):
    status, card = about(server, f"{MARKUP}.safetensors")
    assert (status, card["facts"]["title"]) == (200, MARKUP)


@pytest.mark.parametrize("name", ["good.safetensors", "inside.safetensors"])
def test_a_picture_is_nothing_but_a_picture(name: str, server: Server, loras: Path):
    """Though it is a page as well, no browser may take it for one."""
    status, headers, body = shown(server, name)
    assert (status, body) == (200, POLYGLOT)
    assert headers["Content-Type"] == "image/png"
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["Content-Security-Policy"] == "default-src 'none'; sandbox"
    assert headers["Cross-Origin-Resource-Policy"] == "same-origin"
    assert headers["Cache-Control"] == "private, no-cache"


@pytest.mark.parametrize("name", ["peeping", "passwd", "waiting", "odd", "linked"])
def test_no_picture(name: str, server: Server, loras: Path):
    assert shown(server, f"{name}.safetensors")[0] == 204


def test_a_file_that_is_replaced_has_another_card(server: Server, loras: Path):
    path = loras / "changing.safetensors"
    path.write_bytes(GOOD)
    assert about(server, path.name)[0] == 200
    path.write_bytes(GOOD[:-1])
    assert about(server, path.name)[0] == 422


def test_nothing_of_this_was_an_error_of_the_server(server: Server, loras: Path):
    """The last one: aiohttp logs what a handler raises."""
    log = (server.base / "server.log").read_text()
    assert "Error handling request" not in log
    assert "Traceback" not in log
