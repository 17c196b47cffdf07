"""The model tests' tiny tokenizers and templates are used here too; they lie in a folder that is no package."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "model"))
