"""The worker's program, with quick_codec.py for its codec processes."""

import sys
from pathlib import Path

sys.path[0] = str(Path(__file__).resolve().parent.parent.parent)

import service.processes.supervision  # noqa: E402
import worker  # noqa: E402

if __name__ == "__main__":
    service.processes.supervision.CODEC_PROGRAM = Path(__file__).with_name("quick_codec.py")
    sys.exit(worker.main())
