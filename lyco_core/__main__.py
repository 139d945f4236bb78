"""`python -m lyco_core` is `lyco`."""

import sys

from .cli import main

sys.exit(main())
