"""Writes the tables of *Train Adapter*'s options into its help pages: the English ones as the options tell them,
the Japanese and the Chinese ones as the tooltips of locales/ja and locales/zh do.

    python tools/option_tables.py
"""

import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "support")]

from lyco_testing.option_table import write  # noqa: E402

if __name__ == "__main__":
    write()
