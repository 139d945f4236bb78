"""Brings web/messages.json up to date with what errors that stop a node say: new texts come in, old ones go.

    python tools/messages.py

The languages are written by hand, empty until then; tests/test_messages.py says what they lack.
"""

import json
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "support")]

from lyco_testing.messages import CATALOGUE, LANGUAGES, catalogue, current  # noqa: E402

if __name__ == "__main__":
    had = catalogue()
    empty = dict.fromkeys(LANGUAGES, "")
    told = {kind: {text: had[kind].get(text, empty) for text in texts} for kind, texts in current().items()}
    CATALOGUE.write_text(json.dumps(told, ensure_ascii=False, indent=1) + "\n", encoding="utf-8", newline="\n")
