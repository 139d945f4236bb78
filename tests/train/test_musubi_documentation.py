"""Musubi Tuner's documentation and parsers, in a checkout that $MUSUBI_PATH names: all that they name has an answer."""

import ast
import os
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest

from lyco_core.commands.musubi_command import read_command
from lyco_core.errors import TrainError
from lyco_core.io.toml import read_toml
from lyco_core.train.dataset import parse_datasets
from lyco_core.train.musubi.answers import Answer, answered, flattened, own_options, takes
from lyco_core.train.musubi.scripts import SCRIPTS
from lyco_core.train.musubi.table import ROWS, Fate, Takes
from lyco_core.train.options import train_options

MUSUBI = Path(os.environ.get("MUSUBI_PATH", ""))

pytestmark = pytest.mark.skipif("MUSUBI_PATH" not in os.environ, reason="MUSUBI_PATH names no checkout of Musubi Tuner")


def blocks(language: str) -> Iterator[tuple[str, str]]:
    """(Where it is, text) of every block of code in the documentation."""
    for page in [*sorted((MUSUBI / "docs").glob("*.md")), MUSUBI / "README.md"]:
        text = page.read_text("utf-8")
        for found in re.finditer(rf"^[ \t]*```({language})\n(.*?)^[ \t]*```", text, re.DOTALL | re.MULTILINE):
            yield f"{page.name}:{text.count(chr(10), 0, found.start()) + 1}", found[2]


def commands() -> Iterator[tuple[str, list[str]]]:
    """(Where it is, words) of every command that trains; what stands for others' options is left out."""
    for place, text in blocks("bash|powershell"):
        if re.search(r"_train(_network)?\.py", text):
            lines = [line.rstrip().rstrip("\\`") for line in text.splitlines() if not line.startswith("#")]
            lines = [line.replace("--dit ...", "--dit model") for line in lines]
            plain = re.sub(r"\(\.\.\..*?\.\.\.\)|\.\.\.|\"key\d=value\d\"", "", " ".join(lines)).replace("\\", "/")
            yield place, shlex.split(plain)


def answers_of(words: list[str]) -> list[Answer]:
    asked = read_command(words)
    settings, answers = answered(asked.given, asked.script)
    if not any(answer.fate is Fate.REFUSED for answer in answers):
        train_options(own_options(settings))
    return [*asked.launcher, *answers]


def test_every_command_is_accepted_or_refused_by_the_table():
    found = dict(commands())
    assert len(found) >= 15
    refused: dict[str, list[str]] = {}
    for place, words in found.items():
        answers = answers_of(words)
        assert not [answer.why for answer in answers if answer.why.startswith("there is no option")], place
        refused[place] = [f"{answer.name}: {answer.why}" for answer in answers if answer.fate is Fate.REFUSED]
        for name in (reason.split(":")[0] for reason in refused[place]):
            assert name in ROWS or name.removesuffix(".py") in SCRIPTS or name == "dit" or name == "network_args", name
    for place, why in refused.items():
        print(place, "; ".join(why) or "runs")


def test_every_configuration_is_accepted_or_refused_by_the_table(tmp_path: Path):
    """A dataset that names no folder is one of its page's pieces; it is given one."""
    told: list[str] = []
    for place, text in blocks("toml"):
        (tmp_path / "a.toml").write_text(text.replace(", ...]", "]"), "utf-8")
        settings = read_toml(tmp_path / "a.toml")
        if "datasets" not in settings:
            asked = {name: value for name, value in flattened(settings).items() if name != "network_args"}
            assert {answer.name: answer.why for answer in answered(asked)[1] if answer.fate is Fate.REFUSED} == {}
            continue
        for entry in settings["datasets"]:
            if not any(name.endswith(("image_directory", "video_directory", "_jsonl_file")) for name in entry):
                entry["image_directory"] = "here"
        try:
            parse_datasets(settings, tmp_path)
        except TrainError as error:
            told.append(f"{place} {error}")
            assert re.match(r"datasets: \w+ is not supported here: .", str(error)), place
        else:
            told.append(f"{place} runs")
    assert len(told) == 13
    print("\n".join(told))


def parsers() -> Iterator[tuple[str, str, ast.Call]]:
    """(Kind of script, or *, option, call that adds it) of everything that the trainers' parsers know."""
    source = MUSUBI / "src" / "musubi_tuner"
    shared = {
        "training/parser_common": "*",
        "flux_2/flux2_utils": "flux_2",
        "qwen_image/qwen_image_utils": "qwen_image",
    }
    files = {source / f"{name}.py": kind for name, kind in shared.items()}
    files |= {source / f"{name}.py": script.kind for name, script in SCRIPTS.items()}
    for path, kind in files.items():
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Call) and ast.unparse(node.func).endswith("parser.add_argument"):
                for argument in node.args:
                    name = ast.literal_eval(argument)
                    if name.startswith("--"):
                        yield kind, name.removeprefix("--"), node


def test_every_script_that_trains_is_known():
    found = {path.stem for path in (MUSUBI / "src" / "musubi_tuner").glob("*_train*.py")}
    assert found == set(SCRIPTS)


def test_no_option_is_without_an_answer():
    known = list(parsers())
    assert len({name for _, name, _ in known}) >= 200
    assert {name for _, name, _ in known if name != "config_file" and takes(name) is None} == set()
    kinds: dict[str, set[str]] = {}
    for kind, name, call in known:
        kinds.setdefault(name, set()).add(kind)
        if name in ROWS:
            given = {keyword.arg: ast.unparse(keyword.value) for keyword in call.keywords}
            flag, many = given.get("action", "").startswith("'store"), "nargs" in given
            of = {Takes.FLAG: (True, False), Takes.MANY: (False, True), Takes.FILES: (False, True)}
            assert of.get(ROWS[name].takes, (False, False)) == (flag, many), name
    assert set(ROWS) <= set(kinds)
    for name, row in ROWS.items():
        mine, theirs = set(row.kinds), kinds[name]
        assert mine == theirs or ("*" in mine and "*" in theirs), (name, mine, theirs)
