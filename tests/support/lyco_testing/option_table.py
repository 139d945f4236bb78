"""The options of a training as the help pages list them. `python tools/option_tables.py` writes the tables there."""

import re

from lyco_core.train.options import every_option
from lyco_core.train.rules import Choice
from lyco_testing.locales import ROOT, read

TITLES = {
    "network": "What is trained",
    "run": "How long, and from where",
    "optimizer": "Optimizer",
    "schedule": "Learning rate over time",
    "noise": "Timesteps and loss",
    "loss": "What of a difference counts",
    "save": "What is saved",
    "sample": "Samples while it trains",
    "memory": "Memory",
}
IN_JAPANESE = {
    "network": "学習するもの",
    "run": "長さと開始点",
    "optimizer": "オプティマイザー",
    "schedule": "学習率の変化",
    "noise": "タイムステップと損失",
    "loss": "差の数え方",
    "save": "保存するもの",
    "sample": "学習中のサンプル",
    "memory": "メモリ",
}
IN_CHINESE = {
    "network": "训练什么",
    "run": "训练多久，从何处开始",
    "optimizer": "优化器",
    "schedule": "学习率的变化",
    "noise": "时间步与损失",
    "loss": "差值如何计算",
    "save": "保存什么",
    "sample": "训练中的样图",
    "memory": "显存",
}


def table() -> str:
    """In English, as the options' fields tell them."""
    told = {option.called: option.help for _, option in every_option()}
    return _table(TITLES, "| option | default | |", told, " One of {}.")


def table_in_japanese() -> str:
    """In Japanese, as the widgets' tooltips tell them."""
    return _table(IN_JAPANESE, "| オプション | 既定値 | |", _tooltips("ja"), " 選択肢: {}。")


def table_in_chinese() -> str:
    """In Chinese, as the widgets' tooltips tell them."""
    return _table(IN_CHINESE, "| 选项 | 默认值 | |", _tooltips("zh"), "可选：{}。")


def _tooltips(language: str) -> dict[str, str]:
    return {name: slot["tooltip"] for name, slot in read(language)["LycoTrainAdapter"]["inputs"].items()}


def _table(titles: dict[str, str], head: str, told: dict[str, str], one_of: str) -> str:
    lines: list[str] = []
    part = ""
    for name, option in every_option():
        if not option.graph:
            continue
        if name != part:
            part = name
            lines += ["", f"### {titles[part]}", head, "|---|---|---|"]
        default = option.default if option.default not in ("", ()) else " "
        choices = one_of.format(", ".join(option.rule.values)) if isinstance(option.rule, Choice) else ""
        lines.append(f"| `{option.called}` | {default} | {told[option.called]}{choices} |")
    return "\n".join(lines).strip()


PAGES = {
    "LycoTrainAdapter.md": (TITLES, table),
    "LycoTrainAdapter/ja.md": (IN_JAPANESE, table_in_japanese),
    "LycoTrainAdapter/zh.md": (IN_CHINESE, table_in_chinese),
}
"""Help page -> the titles of its tables, and what makes them."""


def write() -> None:
    """Put the tables in the place of those that the help pages have."""
    for name, (titles, made) in PAGES.items():
        page = ROOT / "web" / "docs" / name
        between = f"### {titles['network']}\n.*?(?=\n\n## )"
        text, count = re.subn(between, lambda _, made=made: made(), page.read_text("utf-8"), flags=re.DOTALL)
        assert count == 1, page
        page.write_text(text, "utf-8")
