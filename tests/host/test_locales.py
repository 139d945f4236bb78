"""What the pack says in each language, held against what a running ComfyUI tells of its nodes."""

import re

import pytest
from lyco_testing.comfy import ROOT, Server
from lyco_testing.locales import LOCALES, english, read
from lyco_testing.nodes import told

LANGUAGES = sorted(path.name for path in LOCALES.iterdir())


@pytest.fixture(scope="module")
def schemas(server: Server) -> dict:
    return english(server.get("/object_info"))


def texts(words: dict) -> dict[str, str]:
    """Dotted key -> text."""
    found = {}
    for name, value in words.items():
        if isinstance(value, dict):
            found |= {f"{name}.{key}": text for key, text in texts(value).items()}
        else:
            found[name] = value
    return found


def test_every_language_is_checked():
    assert sorted(HEADINGS) == LANGUAGES


def test_english_is_what_the_schemas_say(schemas: dict):
    """`python tools/locales.py` writes it."""
    assert read("en") == schemas


def test_every_slot_has_a_tooltip(schemas: dict):
    for node, words in schemas.items():
        for slot in [*words["inputs"].items(), *words["outputs"].items()]:
            assert slot[1].get("tooltip"), (node, slot[0])


@pytest.mark.parametrize("language", LANGUAGES)
def test_a_language_has_every_text_and_none_too_many(language: str, schemas: dict):
    wanted, found = texts(schemas), texts(read(language))
    assert found.keys() == wanted.keys()
    assert not [key for key, text in found.items() if not text.strip()]


@pytest.mark.parametrize("language", sorted({*LANGUAGES} - {"en"}))
def test_sentences_are_translated(language: str):
    known = texts(read("en"))
    same = [key for key, text in texts(read(language)).items() if text == known[key] and not key.endswith(".name")]
    assert same == []


@pytest.mark.parametrize("language", sorted({*LANGUAGES} - {"en"}))
def test_an_option_of_musubi_keeps_its_name(language: str):
    """A label is the translation and then the name, which the documentation of Musubi Tuner has."""
    inputs = read(language)["LycoTrainAdapter"]["inputs"]
    assert [name for name in inputs if name != "model" and not inputs[name]["name"].endswith(f"({name})")] == []


@pytest.mark.parametrize("language", LANGUAGES)
def test_no_text_is_syntax(language: str):
    """ComfyUI compiles the texts as messages of vue-i18n, to which these characters mean something."""
    everything = texts(read(language)) | texts(read(language, "main"))
    assert {key: text for key, text in everything.items() if re.search(r"[@{}|]", text)} == {}


@pytest.mark.parametrize("language", LANGUAGES)
def test_the_category_has_a_name(language: str, server: Server):
    nodes = told(server.get("/object_info"))
    own = {part for info in nodes.values() for part in info["category"].split("/")} - {"model", "loaders", "training"}
    names = read(language, "main")["nodeCategories"]
    assert names.keys() == own
    assert not [name for name in names.values() if "/" in name]  # which would be two categories


@pytest.mark.parametrize("language", LANGUAGES)
def test_the_server_has_them(language: str, server: Server):
    served = server.get("/i18n")[language]
    assert {name: served["nodeDefs"][name] for name in read(language)} == read(language)
    assert served["nodeCategories"].items() >= read(language, "main")["nodeCategories"].items()


DOCS = ROOT / "web" / "docs"
HEADINGS = {
    "en": ["Inputs", "Outputs", "Example", "Common errors", "Options"],
    "ja": ["入力", "出力", "例", "よくあるエラー", "オプション"],
    "zh": ["输入", "输出", "示例", "常见错误", "选项"],
}
"""Language -> sections of a help page. The last is of one that takes its options from tables."""


def page(node: str, language: str) -> str:
    """A help page, where ComfyUI looks for it."""
    return (DOCS / (f"{node}.md" if language == "en" else f"{node}/{language}.md")).read_text("utf-8")


def sections(text: str) -> dict[str, str]:
    parts = re.split(r"^## (.*)$", text, flags=re.M)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def listed(text: str) -> set[str]:
    """What the bullets and the tables' rows are about; of numbered ones the first stands for all."""
    heads = [re.split("[:：]", line)[0] for line in re.findall(r"^- (.*)$", text, re.M)]
    names = [name for head in heads for name in re.findall(r"\*\*(\S+?)\*\*", head)]
    return {first(name) for name in names + re.findall(r"^\| `(\w+)` \|", text, re.M)}


def first(name: str) -> str:
    return re.sub(r"_\d+$", "_1", name)


@pytest.mark.parametrize("language", HEADINGS)
def test_help_pages_list_every_input_and_output_and_no_others(language: str, schemas: dict):
    ins, outs, example, errors, options = HEADINGS[language]
    for node, words in schemas.items():
        found = sections(page(node, language))
        assert [heading for heading in found if heading in (ins, outs, example, errors)] == [ins, outs, example, errors]
        assert listed(found[ins] + found.get(options, "")) == {first(name) for name in words["inputs"]}, node
        assert listed(found[outs]) == {slot["name"] for slot in words["outputs"].values()}, node


@pytest.mark.parametrize("language", HEADINGS)
def test_help_pages_have_the_nodes_name_and_its_picture(language: str, schemas: dict):
    for node in schemas:
        assert page(node, language).startswith(f"# {read(language)[node]['display_name']}\n"), node
        picture = "node.png" if language == "en" else f"node-{language}.png"
        assert f"]({node}/{picture})" in page(node, language)  # to ComfyUI, from web/docs, whatever the language
        assert (DOCS / node / picture).exists()


def test_no_help_page_is_of_a_node_that_is_not_there(schemas: dict):
    pages = {path.relative_to(DOCS).as_posix() for path in DOCS.rglob("*.md")}
    others = [language for language in LANGUAGES if language != "en"]
    assert pages == {f"{node}.md" for node in schemas} | {f"{node}/{other}.md" for node in schemas for other in others}


def test_the_cards_have_every_word_in_every_language():
    text = (ROOT / "web" / "words.mjs").read_text("utf-8")
    words = {
        language: {key: sorted(re.findall(r"\{\d\}", said)) for key, said in re.findall(r'(\w+): "([^"]*)"', body)}
        for language, body in re.findall(r"^  (\w+): \{\n(.*?)^  \},$", text, re.M | re.S)
    }
    assert sorted(words) == LANGUAGES
    assert len(words["en"]) > 30
    assert [language for language in words if words[language] != words["en"]] == []
