"""The routes of the card's blocks in a running ComfyUI: what they measure, what they save, and whom they answer."""

import json
import socket
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path

import pytest
import torch
from lyco_testing.comfy import Server
from lyco_testing.tiny_wan import latents, wan_adapter, wan_checkpoint, workflow
from safetensors.torch import load_file, save_file

import lyco_core as lyco

MODEL, NAME = "blocks_wan.safetensors", "of/some blocks.safetensors"
STRENGTHS = "blocks\\.0\\..*=0.35\nblocks\\.\\d+\\.ffn.*=-1"


@pytest.fixture(scope="module")
def loras(server: Server) -> Path:
    folder = server.base / "models" / "loras"
    save_file(wan_checkpoint(), server.base / "models" / "diffusion_models" / MODEL)
    (folder / "of").mkdir()
    save_file(wan_adapter(), folder / NAME)
    (folder / "blocks_cut.safetensors").write_bytes((folder / NAME).read_bytes()[:-100])
    (server.base / "blocks_secret.safetensors").write_bytes((folder / NAME).read_bytes())
    return folder


def asked(server: Server, path: str, body: bytes | None = None, **headers: str) -> tuple[int, dict]:
    request = urllib.request.Request(server.address + path, body, headers)
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        with error:
            text = error.read()
            return error.code, json.loads(text) if text.startswith(b"{") else {}


def blocks(server: Server, name: str) -> tuple[int, dict]:
    return asked(server, f"/lyco/blocks?adapter={urllib.parse.quote(name, safe='')}")


def saved(server: Server, name: str, **texts: object) -> tuple[int, dict]:
    body = {"adapter": name, "include": "", "exclude": "", "block_strengths": ""} | texts
    return asked(server, "/lyco/save_blocks", json.dumps(body).encode(), **{"Content-Type": "application/json"})


def test_the_blocks_of_a_file(server: Server, loras: Path):
    status, found = blocks(server, NAME)
    norms = {key: float(delta.norm()) for key, delta in lyco.delta(loras / NAME).items()}
    (strip,) = found["blocks"]
    assert (status, strip["name"], strip["pattern"]) == (200, "blocks", [r"blocks\.", r"\..*"])
    assert [cell[:2] for cell in strip["cells"]] == [[0, 10], [1, 10]]
    for number, _, norm in strip["cells"]:
        of = [n for key, n in norms.items() if f".blocks.{number}." in key]
        assert norm == pytest.approx(sum(n**2 for n in of) ** 0.5, rel=1e-5)
    assert blocks(server, NAME) == (status, found)
    save_file({key: 2 * t if "w1" in key else t for key, t in wan_adapter().items()}, loras / "doubled.safetensors")
    assert blocks(server, "doubled.safetensors")[1]["norm"] == pytest.approx(2 * found["norm"], rel=1e-5)


def against(server: Server, name: str, model: str) -> tuple[int, list[dict]]:
    query = urllib.parse.urlencode({"adapter": name, "model": model})
    try:
        with urllib.request.urlopen(f"{server.address}/lyco/against?{query}", timeout=60) as answer:
            return answer.status, [json.loads(line) for line in answer]
    except urllib.error.HTTPError as error:
        with error:
            return error.code, [json.load(error)]


def test_beside_a_models_weights(server: Server, loras: Path):
    status, (*told, found) = against(server, NAME, f"diffusion_models/{MODEL}")
    weights = wan_checkpoint()
    keys = {key.removeprefix("diffusion_model."): delta for key, delta in lyco.delta(loras / NAME).items()}
    for number, share in enumerate(found["blocks"][0]):
        of = [key for key in keys if key.startswith(f"blocks.{number}.")]
        sizes = (sum(float(of_all[key].norm()) ** 2 for key in of) ** 0.5 for of_all in (keys, weights))
        assert share == pytest.approx(next(sizes) / next(sizes), rel=1e-4)
    assert (status, found["unplaced"], len(found["kinds"])) == (200, 0, 10)
    assert all(line.keys() == {"done", "total"} for line in told)
    save_file({key: 2 * t for key, t in weights.items()}, server.base / "models" / "diffusion_models" / MODEL)
    try:
        assert against(server, NAME, f"diffusion_models/{MODEL}")[1][-1]["whole"] == pytest.approx(found["whole"] / 2)
    finally:
        save_file(weights, server.base / "models" / "diffusion_models" / MODEL)


def test_beside_no_models_weights(server: Server, loras: Path):
    """A file that is cut off, and what the loaders do not list."""
    cut = server.base / "models" / "diffusion_models" / "blocks_cut_model.safetensors"
    cut.write_bytes((server.base / "models" / "diffusion_models" / MODEL).read_bytes()[:-100])
    status, (*_, found) = against(server, NAME, f"diffusion_models/{cut.name}")
    assert (status, found["error"].startswith(f"{cut.name}: ")) == (200, True)
    for model in (
        "loras/" + NAME,
        f"diffusion_models/../diffusion_models/{MODEL}",
        f"../{MODEL}",
        "diffusion_models/",
        "",
    ):
        assert against(server, NAME, model)[0] == 404, model
    assert against(server, "nothing.safetensors", f"diffusion_models/{MODEL}")[0] == 404


def test_whoever_leaves_meanwhile_leaves_nothing(server: Server, loras: Path):
    save_file(wan_adapter(), loras / "left.safetensors")
    host, port = server.address.removeprefix("http://").split(":")
    for _ in range(3):
        with socket.create_connection((host, int(port))) as leaving:
            leaving.sendall(
                f"GET /lyco/blocks?adapter=left.safetensors HTTP/1.1\r\nHost: {host}:{port}\r\n\r\n".encode()
            )
    assert blocks(server, "left.safetensors")[0] == 200


def test_a_saved_file_samples_as_the_strengths_do(server: Server, loras: Path):
    """In the folder of the file, and never over another."""
    before = (loras / NAME).read_bytes()
    status, first = saved(server, NAME, block_strengths=STRENGTHS, exclude=r"blocks\.1\.self_attn\.q")
    assert (status, first) == (200, {"adapter": "of/some blocks_blocks.safetensors"})
    assert saved(server, NAME, block_strengths=STRENGTHS)[1] == {"adapter": "of/some blocks_blocks_2.safetensors"}
    assert (loras / NAME).read_bytes() == before
    assert not any("blocks_1_self_attn_q" in key for key in load_file(loras / first["adapter"]))
    known = server.get("/object_info/LycoLoadAdapter")["LycoLoadAdapter"]["input"]["required"]["adapter"]
    assert first["adapter"] in (known[1]["options"] if known[0] == "COMBO" else known[0])
    texts = {"block_strengths": STRENGTHS, "exclude": r"blocks\.1\.self_attn\.q"}
    expected = latents(server, server.run(workflow(MODEL, NAME, strength=0.8, **texts)))
    found = latents(server, server.run(workflow(MODEL, first["adapter"], strength=0.8)))
    plain = latents(server, server.run(workflow(MODEL)))
    assert (found - expected).norm() < 1e-5 * (expected - plain).norm()


REFUSED = {
    "nothing like it": ({"block_strengths": r"blocks\.7\..*=0.5"}, "matches no module"),
    "no strength": ({"block_strengths": r"blocks\.1\..*"}, "is no block strength"),
    "nothing left": ({"exclude": ".*"}, "leave out every module"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_saved(case: str, server: Server, loras: Path):
    texts, reason = REFUSED[case]
    here = sorted(loras.rglob("*"))
    status, answer = saved(server, NAME, **texts)
    assert status == 422
    assert answer["error"].startswith("some blocks.safetensors: ") or case == "no strength"
    assert reason in answer["error"]
    assert sorted(loras.rglob("*")) == here


OUTSIDE = ("../../blocks_secret.safetensors", "of/../of/some blocks.safetensors", "/etc/passwd", "", None, 7, [NAME])


@pytest.mark.parametrize("name", OUTSIDE)
def test_only_what_the_loaders_list(name: object, server: Server, loras: Path):
    here = sorted(server.base.rglob("*.safetensors"))
    assert saved(server, name, block_strengths=STRENGTHS)[0] == 404
    assert blocks(server, str(name))[0] == 404
    assert sorted(server.base.rglob("*.safetensors")) == here


def test_other_questions(server: Server, loras: Path):
    """A form or a script of another site's page cannot send JSON unasked."""
    here = sorted(loras.rglob("*"))
    body = json.dumps({"adapter": NAME, "include": "", "exclude": "", "block_strengths": STRENGTHS}).encode()
    assert asked(server, "/lyco/save_blocks", body, **{"Content-Type": "text/plain"})[0] == 415
    assert asked(server, "/lyco/save_blocks", body)[0] == 415
    assert asked(server, "/lyco/save_blocks")[0] in (404, 405)
    assert saved(server, NAME, block_strengths="x" * 70_000)[0] == 415
    for wrong in (b"{}", b"[]", b"\xff", b"[" * 5000):
        assert asked(server, "/lyco/save_blocks", wrong, **{"Content-Type": "application/json"})[0] == 404
    status, answer = blocks(server, "blocks_cut.safetensors")
    assert (status, answer["error"][:32]) == (422, "blocks_cut.safetensors: is cut o")
    assert sorted(loras.rglob("*")) == here


def test_whole_numbers_of_strengths_stay_in_their_dtype(server: Server, loras: Path):
    """A file in half precision whose scale can take the strength is not made larger."""
    save_file({key: t.bfloat16() for key, t in wan_adapter("lora").items()}, loras / "half_lora.safetensors")
    name = saved(server, "half_lora.safetensors", block_strengths=r"blocks\.1\..*=0.5")[1]["adapter"]
    kinds = {key.rpartition(".")[2]: tensor.dtype for key, tensor in load_file(loras / name).items()}
    assert kinds["weight"] == torch.bfloat16


def test_nothing_of_this_was_an_error_of_the_server(server: Server, loras: Path):
    """The last one: aiohttp logs what a handler raises."""
    log = (server.base / "server.log").read_text()
    assert "Error handling request" not in log
