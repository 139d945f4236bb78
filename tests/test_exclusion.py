"""The pattern that an error offers: it matches what has no place, nothing that has one, and no shell takes it."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lyco_core.exclusion import LONGEST, exclusion

TAKEN = [f"blocks.{n}.attn.{x}" for n in range(8) for x in "qkv"]


@pytest.mark.parametrize(
    ("left", "pattern"),
    [
        (["blocks.9.attn.q", "blocks.9.ffn.0"], r"blocks\.9\..*"),
        ([f"blocks.{n}.attn.q" for n in (8, 10)], r"blocks\.(?:8|10)\..*"),
        ([f"blocks.{n}.attn.norm_{x}" for n in range(8) for x in "qk"], r"blocks\.\d+\.attn\.norm_.*"),
        (["blocks.0.attn.o"], r"blocks\.0\.attn\.o"),
        (["lora_te1_text_model_0_q"], r"lora_.*"),
        (["bundle_emb.it.string_to_param.*"], r"bundle_.*"),
    ],
)
def test_patterns(left: list[str], pattern: str):
    assert exclusion(left, TAKEN) == pattern


names = st.lists(
    st.sampled_from(["blocks", "attn", "lora_unet", "q", "1", "22", "日本", "$(id)", '"', "`", "٣", "a b", "-", "["]),
    min_size=1,
    max_size=5,
).map(".".join)


@given(st.sets(names, max_size=12), st.sets(names, max_size=12))
def test_it_matches_what_is_left_and_nothing_taken(left: set[str], taken: set[str]):
    left -= taken
    pattern = exclusion(sorted(left), taken)
    assert re.fullmatch(r"[A-Za-z0-9_\\.*+?:()|/-]*", pattern)
    assert len(pattern) <= LONGEST
    assert not [name for name in taken if re.fullmatch(pattern, name)]
    for name in left:
        if re.fullmatch(r"[\w.-]+", name, re.ASCII):
            assert re.fullmatch(pattern, name)


def test_it_is_quick_and_short_whatever_the_file():
    left = [f"x{n}.{'_' * 50}{n:x}" for n in range(20_000)]
    assert 0 < len(exclusion(left, [f"y{n}" for n in range(20_000)])) <= LONGEST
