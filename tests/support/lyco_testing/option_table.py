"""The options of a training as the help pages list them. Run it to print the tables anew, one a language."""

from lyco_core.train.option import Choice
from lyco_core.train.options import option_fields
from lyco_testing.locales import read

NAMES = {"algorithm": "network_module"}
TITLES = {
    "network": "What is trained",
    "run": "How long, and from where",
    "optimizer": "Optimizer",
    "schedule": "Learning rate over time",
    "noise": "Timesteps and loss",
    "save": "What is saved",
}
IN_JAPANESE = {
    "network": "学習するもの",
    "run": "長さと開始点",
    "optimizer": "オプティマイザー",
    "schedule": "学習率の変化",
    "noise": "タイムステップと損失",
    "save": "保存するもの",
}


def table() -> str:
    """In English, as the options' fields tell them."""
    told = {NAMES.get(field.name, field.name): field.metadata["told"] for _, field in option_fields()}
    return _table(TITLES, "| option | default | |", told, " One of {}.")


def table_in_japanese() -> str:
    """In Japanese, as the widgets' tooltips tell them."""
    told = {name: slot["tooltip"] for name, slot in read("ja")["LycoTrainAdapter"]["inputs"].items()}
    return _table(IN_JAPANESE, "| オプション | 既定値 | |", told, " 選択肢: {}。")


def _table(titles: dict[str, str], head: str, told: dict[str, str], one_of: str) -> str:
    lines: list[str] = []
    part = ""
    for name, field in option_fields():
        if name != part:
            part = name
            lines += ["", f"### {titles[part]}", head, "|---|---|---|"]
        default = field.default if field.default not in ("", ()) else " "
        rule, shown = field.metadata["rule"], NAMES.get(field.name, field.name)
        choices = one_of.format(", ".join(rule.values)) if isinstance(rule, Choice) else ""
        lines.append(f"| `{shown}` | {default} | {told[shown]}{choices} |")
    return "\n".join(lines).strip()


if __name__ == "__main__":
    print(table(), table_in_japanese(), sep="\n\n")
