"""Writes the table of docs/formats.md from `lyco_testing/trainers.py` and the architectures.

python tools/formats_table.py
"""

import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "support")]

from lyco_testing.trainers import PAGE, page  # noqa: E402

if __name__ == "__main__":
    PAGE.write_text(page(PAGE.read_text(encoding="utf-8")), encoding="utf-8", newline="\n")
