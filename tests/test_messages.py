"""What an error says on a card is there in every language, and nothing is there that no error says."""

import re

import pytest
from lyco_testing.messages import LANGUAGES, catalogue, current, raised

TEXTS = [(kind, text) for kind, texts in catalogue().items() for text in texts]


def gaps(text: str) -> list[str]:
    return sorted(set(re.findall(r"\{\d+\}", text)))


def test_the_catalogue_is_what_the_source_says():
    assert {kind: list(texts) for kind, texts in catalogue().items()} == current(), "python tools/messages.py"


def test_what_is_put_together_in_a_variable_or_a_condition_is_found_too():
    assert "{0}: its numbers are not read; load the file, not its outline" in raised()
    assert "ema_decay was set when it was saved; set it back" in raised()
    assert "the weight holds numbers that are NaN, infinite or too large for its scale; it cannot be scaled" in raised()
    assert not any("--" in text for text, place in raised().items() if place.startswith("lyco_core/commands"))


@pytest.mark.parametrize("language", LANGUAGES)
def test_each_is_said_in_every_language(language: str):
    for kind, text in TEXTS:
        said = catalogue()[kind][text][language]
        assert said.strip(), text
        assert gaps(said) == gaps(text), text


def test_all_languages_agree_on_what_is_to_be_done():
    for kind, text in TEXTS:
        said = catalogue()[kind][text]
        advises = {words.count("\n") for words in said.values()}
        assert advises in ({0}, {1}), text
        if advises == {1}:
            assert kind == "messages"
            assert "; " in text or "en" in said, text  # where English is cut in two
            assert all(part.strip() for words in said.values() for part in words.split("\n")), text
