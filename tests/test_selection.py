"""Which modules take part, and how strongly."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lyco_core.errors import SelectionError
from lyco_core.selection import EVERYTHING, Selection, parse_block_strength

NAMES = {n: (f"blocks.{n}.attn", f"model.{n}") for n in range(12)}


def test_everything_takes_part_by_default():
    assert EVERYTHING.choose(NAMES) == dict.fromkeys(NAMES, 1.0)
    assert not EVERYTHING
    assert EVERYTHING.as_json() == {}


def test_include_exclude_and_strengths():
    chosen = Selection.of([r"blocks\.\d\..*"], [r"blocks\.3\..*"], [(r"blocks\.[0-4]\..*", 0.5), (r".*\.4\..*", 2.0)])
    found = chosen.choose(NAMES)
    assert found == {0: 0.5, 1: 0.5, 2: 0.5, 4: 2.0, 5: 1.0, 6: 1.0, 7: 1.0, 8: 1.0, 9: 1.0}
    assert chosen.as_json()["block_strengths"] == {r"blocks\.[0-4]\..*": 0.5, r".*\.4\..*": 2.0}


def test_any_of_a_modules_names_will_do():
    assert set(Selection.of([r"model\.1\d"]).choose(NAMES)) == {10, 11}


def test_strength_0_leaves_out():
    assert 5 not in Selection.of(block_strengths=[(r"model\.5", 0.0)]).choose(NAMES)


@pytest.mark.parametrize("text", ["blocks", r"blocks\.\d", "attn"])
def test_a_pattern_must_match_a_whole_name(text: str):
    with pytest.raises(SelectionError, match="matches no module; it must match a whole name"):
        Selection.of(exclude=[text]).choose(NAMES)


def test_the_message_has_the_pattern_as_it_was_written_and_one_name_of_each_module():
    names = {n: (f"blocks.{n}", f"blocks.{n}.weight", f"diffusion_model.blocks.{n}") for n in range(2)}
    with pytest.raises(SelectionError) as caught:
        Selection.of([r"blocks\.\d\.attn"]).choose(names)
    assert str(caught.value).startswith(r"the pattern 'blocks\.\d\.attn' matches no module")
    assert "such as blocks.0, blocks.1; end" in str(caught.value)


def test_nothing_left():
    with pytest.raises(SelectionError, match="leave out every module"):
        Selection.of(exclude=[".*"]).choose(NAMES)


def test_names_that_have_no_place_may_be_named():
    assert Selection.of(exclude=["elsewhere"]).choose(NAMES, ["elsewhere"]) == dict.fromkeys(NAMES, 1.0)


@pytest.mark.parametrize("text", ["(", "*a", "a{2,1}", "(?P<a"])
def test_what_is_no_regular_expression(text: str):
    with pytest.raises(SelectionError, match="is no regular expression"):
        Selection.of([text])


@pytest.mark.parametrize("text", ["", "=1", "a", "a=", "a=b", "a=nan", "a=inf", "a=1e39"])
def test_what_is_no_block_strength(text: str):
    with pytest.raises(SelectionError, match="is no block strength; expected PATTERN=NUMBER"):
        parse_block_strength(text)


@given(st.text(min_size=1), st.floats(-3e38, 3e38))
def test_block_strengths_come_back(pattern: str, strength: float):
    assert parse_block_strength(f"{pattern}={strength!r}") == (pattern, strength)
