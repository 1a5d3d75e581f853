"""Small policies are made by the helpers of their own room."""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parents[1] / "act"))
