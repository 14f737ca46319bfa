"""The orchestrator's program with a wall clock that a test may set: $NVC_TEST_CLOCK names a file that holds by how many
seconds it is wrong."""

import os
import sys
import time
from pathlib import Path

sys.path[0] = str(Path(__file__).resolve().parent.parent.parent)

CLOCK, RIGHT = Path(os.environ["NVC_TEST_CLOCK"]), time.time


def wrong() -> float:
    return RIGHT() + float(CLOCK.read_text())


time.time = wrong       # before anything keeps it as the default of a parameter

import orchestrator  # noqa: E402

if __name__ == "__main__":
    sys.exit(orchestrator.main())
