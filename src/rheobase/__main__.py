"""``python -m rheobase``: the command ``rheobase``."""

import sys

from rheobase.cli import main

sys.exit(main())
