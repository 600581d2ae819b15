"""Imports httpx2, or the httpx from which it was forked if only that is installed.

mitmproxy 11 excludes the dependencies of httpx2.
"""

from __future__ import annotations

from importlib.util import find_spec
from typing import TYPE_CHECKING

__all__ = ["httpx2"]

if TYPE_CHECKING or find_spec("httpx2") is not None or find_spec("httpx") is None:
    import httpx2
else:
    import httpx as httpx2
