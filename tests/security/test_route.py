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
from safetensors import safe_open

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


def copy(server: Server, name: str, kind: str = "application/json") -> tuple[int, dict]:
    """Ask for a copy for ComfyUI's own loaders."""
    address = f"{server.address}/lyco/copy?adapter={urllib.parse.quote(name, safe='')}"
    request = urllib.request.Request(address, b"", {"Content-Type": kind}, method="POST")
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        with error:
            return error.code, json.load(error)


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


@pytest.fixture
def wan(loras: Path) -> Path:
    """A file whose names ComfyUI's own loaders do not know, in a folder."""
    path = loras / "sub" / "wan.safetensors"
    tensors = {
        f"lycoris_blocks_{n}_self_attn_{x}.{suffix}": tensor
        for n in range(2)
        for x in "qkvo"
        for suffix, tensor in {"lokr_w1": Raw("F32", (2, 2)), "lokr_w2": Raw("F32", (4, 4))}.items()
    }
    path.write_bytes(file_of(tensors.items()))
    return path


def test_a_copy_for_stock_lies_beside_its_file_once(server: Server, wan: Path):
    """Under a name of its own, with all that it holds; what is there already, of it or of another, is not touched."""
    name, made = "sub/wan.safetensors", wan.with_name("wan_comfyui.safetensors")
    made.write_bytes(GOOD)
    assert about(server, name)[1]["copy"] == {"name": "sub/wan_comfyui.safetensors", "there": False}
    status, answer = copy(server, name)
    assert status == 422
    assert "wan_comfyui.safetensors: is there already; choose it in the other loader" in answer["error"]
    assert made.read_bytes() == GOOD
    made.unlink()
    assert copy(server, name) == (200, {"name": "sub/wan_comfyui.safetensors"})
    with safe_open(made, "pt") as file:
        assert set(file.keys()) == {
            f"diffusion_model.blocks.{n}.self_attn.{x}.lokr_w{f}" for n in range(2) for x in "qkvo" for f in (1, 2)
        }
    assert about(server, name)[1]["copy"] == {"name": "sub/wan_comfyui.safetensors", "there": True}
    assert about(server, "sub/wan_comfyui.safetensors")[1]["copy"] is None
    assert "sub/wan_comfyui.safetensors" in server.get("/models/loras")
    assert copy(server, name)[0] == 422
    made.unlink()


@pytest.mark.parametrize("name", OUTSIDE)
def test_nothing_else_is_copied(name: str, server: Server, loras: Path):
    before = sorted(server.base.rglob("*"))
    assert copy(server, name) == (404, {"error": "there is no such file in models/loras"})
    assert sorted(server.base.rglob("*")) == before


def test_another_sites_page_copies_nothing(server: Server, wan: Path):
    """A form's request, which a browser sends anywhere unasked, and one that says where it is from."""
    for kind in ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data"):
        assert copy(server, "sub/wan.safetensors", kind)[0] == 415
    assert ask(server, "copy", "adapter=sub/wan.safetensors")[0] == 404
    assert not wan.with_name("wan_comfyui.safetensors").exists()


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("rescale.safetensors", "oft_blocks missing"),
        ("kinds.safetensors", "its modules are of no known architecture"),
        (
            "turned.safetensors",
            "q: is OFT, of which ComfyUI's own loaders make another change; load it with Load LoHa/LoKr",
        ),
        ("line\nbreak.safetensors", "which Windows and its disks refuse"),
    ],
)
def test_what_has_no_copy_says_why(name: str, said: str, server: Server, loras: Path):
    turned = {f"lycoris_blocks_0_self_attn_{x}.oft_blocks": Raw("F32", (2, 4, 4)) for x in "qkvo"}
    (loras / "turned.safetensors").write_bytes(file_of(turned.items()))
    before = sorted(loras.rglob("*"))
    status, answer = copy(server, name)
    assert status == 422
    assert said in answer["error"]
    assert answer["error"].isprintable()
    assert sorted(loras.rglob("*")) == before


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
