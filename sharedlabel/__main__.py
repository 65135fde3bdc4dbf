"""`python -m sharedlabel` is `sharedlabel`."""

import sys

from sharedlabel.cli import main

if __name__ == "__main__":
    sys.exit(main())
