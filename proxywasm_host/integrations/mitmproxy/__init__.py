"""Filters in mitmproxy: an addon, and commands that start mitmproxy's programs with it.

``mitmdump -s script.py`` loads it too; ``script.py`` is in the folder of this file.
"""

from __future__ import annotations

import sys
from pathlib import Path

from proxywasm_host import remedy

try:
    from mitmproxy.tools import main

    from proxywasm_host.integrations.mitmproxy.addon import ProxyWasm
except ModuleNotFoundError as error:
    raise remedy.missing("mitmproxy", error) from None

__all__ = ["SCRIPT", "ProxyWasm", "mitmdump", "mitmproxy", "mitmweb"]

SCRIPT = str(Path(__file__).with_name("script.py"))
"""The path for mitmproxy's option ``-s``."""


def mitmdump() -> None:
    """``proxywasm-mitmdump``: mitmdump with the addon."""
    main.mitmdump(["-s", SCRIPT, *sys.argv[1:]])


def mitmweb() -> None:
    """``proxywasm-mitmweb``: mitmweb with the addon."""
    main.mitmweb(["-s", SCRIPT, *sys.argv[1:]])


def mitmproxy() -> None:
    """``proxywasm-mitmproxy``: mitmproxy with the addon."""
    main.mitmproxy(["-s", SCRIPT, *sys.argv[1:]])
