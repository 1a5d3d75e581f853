"""The emulated chains of the hardware tests serve these, too."""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parents[1] / "hardware"))
