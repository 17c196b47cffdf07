"""`python -m ingle`."""

import sys

from ingle.cli.main import main

sys.exit(main())
