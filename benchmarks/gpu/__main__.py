"""`python benchmarks/gpu`, which is what `make gpu` runs: checks, then times, on this machine's device."""

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
# In the place of this folder, whose modules go by the package's name alone.
sys.path[:1] = [str(ROOT / "benchmarks"), str(ROOT / "tests" / "support"), str(ROOT)]

from gpu.command import main  # noqa: E402 - what the line above lets be found

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
