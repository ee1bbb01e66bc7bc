"""`python -m speechtok` is the same command as `speechtok`."""

import sys

from speechtok.cli import main

if __name__ == "__main__":
    sys.exit(main())
