"""``python -m replstore`` is the command ``replstore``."""

import sys

from replstore.cli import main

sys.exit(main())
