"""What was found, for the terminal, and as a page in Markdown that docs/performance.md takes."""

from __future__ import annotations

import datetime
import re
import unicodedata
from collections.abc import Sequence
from pathlib import Path

from gpu.asked import ROOT
from gpu.results import Item, Line, Row, failure, sections

WHO = ("lyco", "ComfyUI", "LyCORIS", "PEFT")
PAGE = ROOT / "docs" / "performance.md"
MARK = "<!-- gpu {}: {} -->"
"""Around a card's section of docs/performance.md."""


def terminal(items: Sequence[Item]) -> str:
    """Checks counted by section, and the tables in columns."""
    found: list[str] = []
    for section, checks in sections(items).items():
        right = sum(check.passed for check in checks)
        found.append(f"{'ok' if right == len(checks) else 'FAILED':<7} {section}: {right} of {len(checks)}")
    for table, rows in tables(items).items():
        found += ["", table]
        found += _aligned([_head(rows), *(_cells(row, rows) for row in rows)])
    return "\n".join(found)


def tables(items: Sequence[Item]) -> dict[str, list[Row]]:
    """The rows by table."""
    found: dict[str, list[Row]] = {}
    for item in items:
        if isinstance(item, Row):
            found.setdefault(item.table, []).append(item)
    return found


def _who(rows: Sequence[Row]) -> list[str]:
    """Who is in a table: those that are compared, then what stands beside them."""
    named = dict.fromkeys(who for row in rows for who in row.times)
    return [*(who for who in WHO if who in named), *(who for who in named if who not in WHO)]


def _head(rows: Sequence[Row]) -> list[str]:
    ratio = ["ComfyUI / lyco"] if any("ComfyUI" in row.times for row in rows) else []
    return ["", *_who(rows), *ratio, ""]


def _cells(row: Row, rows: Sequence[Row]) -> list[str]:
    cells = [row.what, *(shown(row.times[who]) if who in row.times else "" for who in _who(rows))]
    if any("ComfyUI" in one.times for one in rows):
        ours, theirs = row.times.get("lyco"), row.times.get("ComfyUI")
        cells.append(f"{theirs / ours:.2f}" if ours and theirs else "")
    return [*cells, _note(row)]


def _note(row: Row) -> str:
    peaks = ", ".join(f"{who} {megabytes:.0f} MB" for who, megabytes in row.megabytes.items())
    return "; ".join(filter(None, [row.note, f"extra memory: {peaks}" if peaks else ""]))


def shown(milliseconds: float | None) -> str:
    """As a person reads it."""
    if milliseconds is None:
        return "out of memory"
    if milliseconds >= 10_000:
        return f"{milliseconds / 1000:.1f} s"
    return f"{milliseconds:.0f} ms" if milliseconds >= 100 else f"{milliseconds:#.3g} ms"


def _aligned(lines: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(len(cell) for cell in column) for column in zip(*lines, strict=True)]
    made: list[str] = []
    for cells in lines:
        first, *others, last = cells
        padded = [first.ljust(widths[0]), *(c.rjust(w) for c, w in zip(others, widths[1:-1], strict=True)), last]
        made.append("  ".join(padded).rstrip())
    return made


def write(folder: Path, items: Sequence[Item], seconds: float) -> Path:
    """The page of this device, and its path."""
    about = [*dict.fromkeys(item.text for item in items if isinstance(item, Line) and item.about == "device")]
    device = about[0] if about else "unknown device"
    path = folder / f"{slug(device)}.md"
    path.write_text("\n".join(_page(device, about[1:], items, seconds)) + "\n", encoding="utf-8")
    return path


def slug(device: str) -> str:
    """A device's name as part of a file's: `nvidia-h100-80gb-hbm3`."""
    plain = unicodedata.normalize("NFKD", device).encode("ascii", "ignore").decode().lower()
    return re.sub(r"[^a-z0-9]+", "-", plain.partition(";")[0]).strip("-")


def _page(device: str, about: Sequence[str], items: Sequence[Item], seconds: float) -> list[str]:
    today = datetime.date.today().isoformat()
    found = [f"### {device.partition(';')[0]}", ""]
    found += [f"Measured by `make gpu` on {today} in {seconds / 60:.1f} minutes: {device}.", *(f"{a}." for a in about)]
    checked = sections(items)
    passed = {section: sum(check.passed for check in checks) for section, checks in checked.items()}
    counts = ", ".join(f"{section} {passed[section]} of {len(checks)}" for section, checks in checked.items())
    if counts:
        found += ["", f"Checks that passed: {counts}."]
    failed = [check for checks in checked.values() for check in checks if not check.passed]
    found += [*(["", "Failed:", ""] if failed else []), *(f"- {failure(check)}" for check in failed)]
    for table, rows in tables(items).items():
        head = _head(rows)
        found += ["", f"**{table}**", "", _line(head), "|---" * len(head) + "|"]
        found += (_line(_cells(row, rows)) for row in rows)
    said = [item.text for item in items if isinstance(item, Line) and not item.about]
    return [*found, *(["", "Not run, or otherwise:", ""] if said else []), *(f"- {text}" for text in said)]


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cell.replace('|', '/') for cell in cells)} |"


def publish(page: Path, into: Path = PAGE) -> Path:
    """Put a device's page into docs/performance.md, in the place of what was there of that device."""
    text, whole = page.read_text(encoding="utf-8").strip(), into.read_text(encoding="utf-8")
    title = re.match(r"### (.+)", text)
    if title is None:
        raise SystemExit(f"{page}: expected a page that make gpu has written, which begins with ### and the device")
    begin, end = (MARK.format(slug(title[1]), word) for word in ("begin", "end"))
    before, found, rest = whole.partition(begin)
    after = rest.partition(end)[2] if found else "\n"
    into.write_text(f"{before.rstrip()}\n\n{begin}\n{text}\n{end}{after}", encoding="utf-8")
    return into
