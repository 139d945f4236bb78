"""The core's errors speak of what is wrong; each place says what to do about it, by options that are there."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from lyco_testing.tables import loha, lokr, musubi_file, random
from safetensors.torch import save_file

import lyco_core
from lyco_core.cli import main
from lyco_core.commands.common import ADVICE
from lyco_core.errors import LycoError, MergeError, Remedy, about_file, advising
from lyco_core.merging import MergeOptions, round_to

CORE = Path(lyco_core.__file__).parent
PLACES = re.compile(
    r"--[a-z]|Load LoHa|Stack Loader|Merge into|Convert Musubi|Inspect Adapter|Train Adapter|on_partial"
)


def texts(tree: ast.AST) -> Iterator[ast.Constant]:
    """The strings of a module without its docstrings."""
    bare = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in bare:
            yield node


def test_the_core_names_no_option_of_a_command_and_no_node():
    own = {CORE / "cli.py", CORE / "demo.py", *(CORE / "commands").iterdir()}
    own |= {CORE / "train" / name for name in ("sample_options.py", "samples.py")}  # a prompt has options of its own
    named = [
        f"{path.name}:{text.lineno} {text.value!r}"
        for path in CORE.rglob("*.py")
        if path not in own
        for text in texts(ast.parse(path.read_text("utf-8")))
        if PLACES.search(text.value)
    ]
    assert named == []


def test_every_remedy_has_words_on_the_command_line():
    assert ADVICE.keys() == {*Remedy}
    for remedy, words in ADVICE.items():
        assert ("{}" in words) == ("{}" in remedy.value)


def test_an_error_says_what_to_do_wherever_it_is_told():
    def fail() -> None:
        with about_file("/somewhere/a.safetensors"):
            try:
                round_to(torch.tensor([1e6]), torch.float16)
            except MergeError as error:
                raise error.within("blocks.0.weight") from None

    with pytest.raises(MergeError) as caught:
        fail()
    what = "a.safetensors: blocks.0.weight: the result reaches 1e+06, float16 ends at 65504; "
    assert str(caught.value) == f"{what}store it in bfloat16"
    with pytest.raises(MergeError) as caught, advising({}), advising(ADVICE):
        fail()
    assert str(caught.value) == f"{what}use --dtype bfloat16"


def test_a_subject_cannot_break_the_line():
    error = LycoError("it is wrong", Remedy.LAYOUT, "a\n\x1b[31mb")
    assert str(error) == r"it is wrong; convert to a\n\x1b[31mb"


def test_a_device_that_is_not_there():
    with pytest.raises(MergeError, match=r"the device cuda:77 is not there \(.*\); use the processor$"):
        MergeOptions(device="cuda:77")


@pytest.fixture
def files(tmp_path: Path) -> Path:
    several = loha("lora_unet_blocks_0_self_attn_q", 64, 64, random)
    several |= lokr("lora_unet_blocks_0_self_attn_k", 64, 64, random)
    save_file(several, tmp_path / "several.safetensors")
    save_file({"lora_unet_blocks_0_self_attn_q.oft_blocks": random(4, 16, 16) / 9}, tmp_path / "oft.safetensors")
    save_file(
        musubi_file({"clean_x_embedder.proj": (64, 64), "transformer_blocks.0.ff.net.2": (64, 256)}, tensor=random),
        tmp_path / "clean.safetensors",
    )
    keys = [f"blocks.0.{a}.{x}.weight" for a in ("self_attn", "cross_attn") for x in "qkvo"]
    save_file({key: torch.full((64, 64), 6e4) for key in keys}, tmp_path / "base.safetensors")
    packed = {keys[-1]: torch.zeros(64, 64, dtype=torch.int8)}
    save_file({key: torch.zeros(64, 64) for key in keys[:-1]} | packed, tmp_path / "int8.safetensors")
    return tmp_path


@pytest.mark.parametrize(
    ("command", "ending"),
    [
        ("convert oft.safetensors --to musubi --architecture wan", r"only; convert with --to comfyui or diffusers"),
        ("convert clean.safetensors --to comfyui --architecture framepack", r"a place with --to musubi or diffusers"),
        ("merge --base base.safetensors --adapter several.safetensors@1e6 --dtype float16", "use --dtype bfloat16"),
        ("merge --base int8.safetensors --adapter several.safetensors --dtype float16", "leave --dtype out"),
        (
            "merge --base base.safetensors --adapter several.safetensors --device cuda:77",
            "leave --device out to use .*",
        ),
        ("merge --base base.safetensors --adapter several.safetensors --max-shard-size x", "such as 5GB or 500MiB"),
        ("merge --base base.safetensors --adapter several.safetensors@nan", "strength nan is not a number"),
        ("merge --base base.safetensors --adapter several.safetensors --block-strength .*=inf", "e.g. .*"),
    ],
)
def test_commands_advise_their_own_options(
    command: str, ending: str, files: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.chdir(files)
    before = sorted(files.iterdir())
    assert main([*command.split(), "-o", "out.safetensors"]) == 1
    assert re.fullmatch(rf"lyco: error: .*{ending}\n", capsys.readouterr().err)
    assert sorted(files.iterdir()) == before
