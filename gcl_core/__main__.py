"""`python -m gcl_core`."""

import sys

from gcl_core.cli import main

if __name__ == "__main__":
    sys.exit(main())
