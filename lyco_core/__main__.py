"""`python -m lyco_core` is `lyco`, and so is `python …/lyco_core`, for a Python that does not look into its folder."""

import os
import sys

if not __package__:  # run as a folder, which Python has put on its path: our modules would hide Python's own
    sys.path[0] = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))

try:
    from lyco_core.cli import main
except KeyboardInterrupt:
    sys.exit("lyco: interrupted; nothing was written")

sys.exit(main())
