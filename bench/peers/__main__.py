"""Makes the environments of the peers in a folder: python -m bench.peers FOLDER."""

from __future__ import annotations

import sys
from pathlib import Path

from bench.peers import PLACE, make_all

make_all(Path(sys.argv[1]) if len(sys.argv) > 1 else PLACE)
