"""Exit codes, and the errors that lead to them.

0    done
1    engines do not agree (``run --engine all``), a test failed (``test``), or a replay differs (``replay``)
2    wrong usage: options, files, URL, configuration
3    the module is invalid, or its ABI is not supported
4    the engine is not available
5    the guest trapped, or refused its configuration
124  the guest exceeded its deadline (as with ``timeout``)
"""

from __future__ import annotations

from enum import IntEnum
from typing import Any

from proxywasm_host.errors import ConfigError, EngineUnavailable, ModuleError, ProxyWasmError, UnknownEngine
from proxywasm_host.runtime.failure import Failure, PluginError

__all__ = ["Exit", "exit_of", "exit_of_failure", "summary"]


class Exit(IntEnum):
    """The exit codes of the program."""

    OK = 0
    DISAGREE = 1
    FAILED = 1
    USAGE = 2
    MODULE = 3
    ENGINE = 4
    GUEST = 5
    DEADLINE = 124


KINDS: tuple[tuple[type[ProxyWasmError], Exit, str], ...] = (
    (ConfigError, Exit.USAGE, "configuration"),
    (ModuleError, Exit.MODULE, "module"),
    (UnknownEngine, Exit.ENGINE, "engine"),
    (EngineUnavailable, Exit.ENGINE, "engine"),
)


def exit_of_failure(failure: Failure | None) -> Exit:
    """The exit code after a run: that of the guest's failure, or 0."""
    if failure is None:
        return Exit.OK
    return Exit.DEADLINE if failure.kind == "deadline" else Exit.GUEST


def exit_of(error: ProxyWasmError) -> Exit:
    """The exit code for an error outside a running guest."""
    return next((code for kind, code, _ in KINDS if isinstance(error, kind)), Exit.GUEST)


def summary(error: ProxyWasmError | Failure | None) -> dict[str, Any] | None:
    """An error in the form of ``--json``."""
    if error is None:
        return None
    if isinstance(error, PluginError):
        return summary(error.failure)
    if isinstance(error, Failure):
        return {
            "kind": error.kind,
            "message": error.message,
            "callback": error.callback or None,
            "backtrace": list(map(str, error.backtrace)),
        }
    kind = next((kind for type, _, kind in KINDS if isinstance(error, type)), "host")
    return {"kind": kind, "message": str(error), "callback": None, "backtrace": []}
