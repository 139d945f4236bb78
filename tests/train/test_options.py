"""Options that are told, in the help page and the widgets' tooltips, as they are."""

from pathlib import Path

from lyco_testing.option_table import table, table_in_japanese

from lyco_core.train.options import REFUSED, every_option

ROOT = Path(__file__).parents[2]


def test_the_help_pages_list_every_option():
    """`python tools/option_tables.py` writes them there."""
    assert table() in (ROOT / "web/docs/LycoTrainAdapter.md").read_text("utf-8")
    assert table_in_japanese() in (ROOT / "web/docs/LycoTrainAdapter/ja.md").read_text("utf-8")


def test_every_option_is_told_in_a_sentence():
    names = [option.called for _, option in every_option()]
    assert len(set(names)) == len(names)
    assert not set(names) & REFUSED.keys()
    for _, option in every_option():
        assert option.told.endswith("."), option.name
        assert option.rule.holds(option.default), option.name
        assert option.rule.holds(option.node_default), option.name
