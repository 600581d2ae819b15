"""The directory for builds and downloads of the benchmarks, outside of the checkout."""

from __future__ import annotations

import os
from pathlib import Path

CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "proxywasm-host" / "benchmarks"
