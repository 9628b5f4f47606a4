"""`python -m quantbench` is `quantbench`."""

import sys

from quantbench.cli import main

sys.exit(main())
