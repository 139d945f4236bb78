"""The options of a training as the help page lists them. Run it to print the table anew."""

from lyco_core.train.option import Choice
from lyco_core.train.options import option_fields

NAMES = {"algorithm": "network_module"}
TITLES = {
    "network": "What is trained",
    "run": "How long, and from where",
    "optimizer": "Optimizer",
    "schedule": "Learning rate over time",
    "noise": "Timesteps and loss",
    "save": "What is saved",
}


def table() -> str:
    lines: list[str] = []
    part = ""
    for name, field in option_fields():
        if name != part:
            part = name
            lines += ["", f"### {TITLES[part]}", "| option | default | |", "|---|---|---|"]
        default = field.default if field.default not in ("", ()) else " "
        rule = field.metadata["rule"]
        choices = f" One of {', '.join(rule.values)}." if isinstance(rule, Choice) else ""
        lines.append(f"| `{NAMES.get(field.name, field.name)}` | {default} | {field.metadata['told']}{choices} |")
    return "\n".join(lines).strip()


if __name__ == "__main__":
    print(table())
