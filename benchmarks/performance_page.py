"""docs/performance.md and its plot, from measured rows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from timing import ROOT

WHO = ("lyco", "ComfyUI", "LyCORIS", "PEFT")
COLORS = {"lyco": "#2a78d6", "ComfyUI": "#c2562d", "LyCORIS": "#7b7b7b", "PEFT": "#b9b9b9"}
START, END = "<!-- measured: begin -->", "<!-- measured: end -->"


class Row(Protocol):
    """What was done, who took how many milliseconds, and a note."""

    what: str
    times: dict[str, float]
    note: str


def write_page(machine: str, rows: Sequence[Row]) -> None:
    """Replace the measured part of the page, and the plot; print the table."""
    table = "\n".join(lines(machine, rows))
    print(table)
    page = ROOT / "docs" / "performance.md"
    text = page.read_text(encoding="utf-8")
    before, rest = text.split(START)
    _, after = rest.split(END)
    page.write_text(f"{before}{START}\n{table}\n{END}{after}", encoding="utf-8")
    (ROOT / "docs" / "performance.svg").write_text(plot(rows), encoding="utf-8")


def lines(machine: str, rows: Sequence[Row]) -> list[str]:
    """The table in Markdown."""
    found = [
        f"Measured on: {machine}.",
        "",
        f"| | {' | '.join(WHO)} | ComfyUI / lyco | |",
        "|---" * (len(WHO) + 3) + "|",
    ]
    for row in rows:
        cells = [shown(row.times.get(who)) for who in WHO]
        ratio = f"**{row.times['ComfyUI'] / row.times['lyco']:.1f}**" if "ComfyUI" in row.times else ""
        extra = [f"{who} {shown(row.times[who])}" for who in ("Linear", "cp") if who in row.times]
        found.append(f"| {row.what} | {' | '.join(cells)} | {ratio} | {'; '.join([*extra, row.note])} |")
    return found


def shown(milliseconds: float | None) -> str:
    """As a person reads it."""
    if milliseconds is None:
        return ""
    return f"{milliseconds / 1000:.1f} s" if milliseconds >= 10_000 else f"{milliseconds:.0f} ms"


def plot(rows: Sequence[Row]) -> str:
    """Bars of each side's time over ours, by row, as SVG; those beyond ten times are cut and labelled."""
    left, unit, bar, gap, limit = 330, 40, 11, 14, 10.0
    height = 40 + sum(bar * sum(who in row.times for who in WHO) + gap for row in rows)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{left + 560}" height="{height}" font-family="sans-serif" '
        f'font-size="11"><rect width="100%" height="100%" fill="white"/>'
    ]
    for number, who in enumerate(WHO):
        x = left + 90 * number
        parts.append(
            f'<rect x="{x}" y="8" width="10" height="10" fill="{COLORS[who]}"/><text x="{x + 14}" y="17">{who}</text>'
        )
    top = 32
    for row in rows:
        parts.append(f'<text x="{left - 8}" y="{top + bar}" text-anchor="end">{row.what}</text>')
        for who in WHO:
            if who not in row.times:
                continue
            ratio = row.times[who] / row.times["lyco"]
            width = unit * min(ratio, limit)
            parts.append(f'<rect x="{left}" y="{top}" width="{width:.0f}" height="{bar - 2}" fill="{COLORS[who]}"/>')
            label = f"{shown(row.times[who])}" + ("" if who == "lyco" else f" ({ratio:.1f} x)")
            parts.append(f'<text x="{left + width + 5:.0f}" y="{top + bar - 3}">{label}</text>')
            top += bar
        top += gap
    return "\n".join([*parts, "</svg>"]) + "\n"
