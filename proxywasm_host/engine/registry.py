"""Finds engines, and chooses one.

There are three sources of engines, in this order of precedence: `register_engine`, entry points in the group
``proxywasm_host.engines`` of installed distributions, and the table of our distributions below. To list names imports
nothing. An installed engine need not be usable: to find out, the registry opens it and runs a tiny module.
"""

from __future__ import annotations

import inspect
import os
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import lru_cache
from importlib import import_module
from typing import TYPE_CHECKING, Any

from proxywasm_host import remedy
from proxywasm_host.errors import EngineUnavailable, UnknownEngine, not_among

from .protocol import Capabilities, Engine
from .smoke import smoke_test

__all__ = ["EngineStatus", "check_name", "engine_names", "list_engines", "open_engine", "register_engine"]

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

GROUP = "proxywasm_host.engines"
_VARIABLE = "PROXYWASM_ENGINE"
_OURS = {
    # name: (distribution, priority)
    "v8": ("proxywasm-engine-v8", 200),
    "wasmer": ("proxywasm-engine-wasmer", 100),
    "wasmtime": ("proxywasm-engine-wasmtime", 300),
}
_WORDS = {"true": True, "yes": True, "on": True, "1": True, "false": False, "no": False, "off": False, "0": False}

_registered: dict[str, str] = {}
_opened: dict[tuple[str, str], Engine] = {}
_lock = threading.RLock()


@dataclass(frozen=True, slots=True)
class EngineStatus:
    """One line of ``proxywasm engines``. `reason` and `remedy` are empty if the engine is usable."""

    name: str
    distribution: str
    installed: bool
    usable: bool
    priority: int
    version: str = ""
    reason: str = ""
    remedy: str = ""
    note: str = ""
    capabilities: Capabilities = field(default_factory=Capabilities)
    limits: str = ""
    """How the engine enforces limits, if it does so in a special way."""


def register_engine(name: str, target: str) -> None:
    """Register a class as the engine `name`. `target`, ``"package.module:Class"``, is imported when it is needed.

    Raises: ValueError if `target` does not have this form.
    """
    module, colon, attribute = target.partition(":")
    if not (module and colon and attribute):
        raise ValueError(f"target {target!r} is not of the form 'package.module:Class'")
    with _lock:
        _registered[name] = target
        for key in [key for key in _opened if key[0] == name]:
            del _opened[key]


def engine_names() -> tuple[str, ...]:
    """The names of all known engines, installed or not, in alphabetical order."""
    return tuple(sorted({*_OURS, *_entry_points(), *_registered}))


def open_engine(name: str | None = None, **options: object) -> Engine:
    """Open the engine `name`. Calls with the same name and options share one engine in the process.

    Without a name, this is the first usable engine in ``PROXYWASM_ENGINE``, a list separated by commas; without that
    variable, the usable engine with the highest priority. Environment variables such as ``PROXYWASM_WASMTIME_ROUTE``
    set options that are not given.

    Raises: UnknownEngine; EngineUnavailable; TypeError or ValueError for an option that the engine does not have.
    """
    if name is not None:
        check_name(name)
        return _open(name, options)
    wanted = [word.strip() for word in os.environ.get(_VARIABLE, "").split(",") if word.strip()]
    for word in wanted:
        check_name(word, f" (named by {_VARIABLE})")
    refusals = []
    for candidate in wanted or _by_priority():
        try:
            return _open(candidate, options)
        except EngineUnavailable as error:  # noqa: PERF203 - a few iterations
            refusals.append(error)
    raise _best_explanation(refusals)


def list_engines() -> list[EngineStatus]:
    """The state of each known engine, the best first. Opens all installed engines, and raises nothing."""
    return sorted(map(_status, engine_names()), key=lambda status: (not status.usable, -status.priority, status.name))


def _open(name: str, options: Mapping[str, object]) -> Engine:
    given = {**_options_from_environment(name), **options}
    key = name, repr(sorted(given.items()))
    with _lock:
        if key not in _opened:
            _opened[key] = _open_anew(name, given, from_environment=given.keys() - options.keys())
        return _opened[key]


def _open_anew(name: str, options: Mapping[str, object], from_environment: set[str]) -> Engine:
    if name in _OURS and name not in _registered and not _in_main_interpreter():
        raise EngineUnavailable(
            name,
            "not usable in a sub-interpreter",
            "run this in the main interpreter (WSGIApplicationGroup %{GLOBAL} in mod_wsgi)",
        )
    make = _load(name)
    _check_options(name, make, options, from_environment)
    try:
        engine: Engine = make(**options)
        smoke_test(engine)
    except (EngineUnavailable, KeyboardInterrupt):
        raise
    except BaseException as error:  # SystemExit, or the panic of an extension in Rust
        if options and isinstance(error, ValueError):
            raise  # about the value of an option
        raise _unusable(name, error) from error
    return engine


def _in_main_interpreter() -> bool:
    """Whether this is the main interpreter.

    Engines, and ctypes before CPython 3.12, have static state for a single interpreter, which others could break.
    """
    for name in ("_interpreters", "_xxsubinterpreters"):  # since CPython 3.13, and before
        with suppress(ImportError):
            interpreters = import_module(name)
            return bool(interpreters.get_current() == interpreters.get_main())
    return True


def _load(name: str) -> Callable[..., Engine]:
    """The class of an engine. Raises: UnknownEngine, EngineUnavailable."""
    check_name(name)
    try:
        if name in _registered:
            module, _, attribute = _registered[name].partition(":")
            return _callable(getattr(import_module(module), attribute))
        if name in _entry_points():
            return _callable(_entry_points()[name].load())
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        raise _unusable(name, error) from error
    raise EngineUnavailable(name, "known but not installed", remedy.install_engine(_distribution(name)))


def _callable(loaded: object) -> Callable[..., Engine]:
    if not callable(loaded):
        raise TypeError(f"{loaded!r} is not a class")
    return loaded


def check_name(name: str, where: str = "") -> None:
    """Check that an engine `name` is known. `where` ends the message. Raises: UnknownEngine, TypeError."""
    if not isinstance(name, str):
        raise TypeError(f"an engine is a name (one of {', '.join(engine_names())}), not {name!r}")
    names = engine_names()
    if name not in names:
        raise UnknownEngine(not_among("engine", name, names, where))


def _unusable(name: str, error: BaseException) -> EngineUnavailable:
    distribution = _distribution(name)
    what_to_do = remedy.install_engine(distribution, upgrade=True) if distribution else "ask the author of the engine"
    return EngineUnavailable(name, f"installed but not usable ({type(error).__name__}: {error})", what_to_do)


def _best_explanation(refusals: list[EngineUnavailable]) -> EngineUnavailable:
    """Prefer the error of an engine that is installed but broken to one of an engine that is not installed."""
    return next((error for error in refusals if "not installed" not in error.reason), refusals[0])


def _by_priority() -> list[str]:
    return sorted(engine_names(), key=lambda name: (-_priority(name), name))


def _priority(name: str) -> int:
    if name in _OURS and name not in _registered:
        return _OURS[name][1]
    try:
        return int(getattr(_load(name), "priority", 0))
    except (EngineUnavailable, TypeError, ValueError):
        return 0


def _options_from_environment(name: str) -> dict[str, object]:
    prefix = f"PROXYWASM_{name.upper().replace('-', '_')}_"
    return {
        variable[len(prefix) :].lower(): _WORDS.get(value.lower(), value)
        for variable, value in os.environ.items()
        if variable.startswith(prefix)
    }


def _check_options(
    name: str, make: Callable[..., Engine], options: Mapping[str, object], from_environment: set[str]
) -> None:
    parameters = inspect.signature(make).parameters
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values()):
        return
    for option in options:
        if option not in parameters:
            origin = f" (set by PROXYWASM_{name.upper()}_{option.upper()})" if option in from_environment else ""
            known = ", ".join(parameters) or "none"
            raise TypeError(f"engine {name!r} has no option {option!r}{origin}; its options: {known}")


def _status(name: str) -> EngineStatus:
    distribution, installed = _distribution(name), name in _registered or name in _entry_points()
    known: dict[str, Any] = {"name": name, "distribution": distribution, "priority": _priority(name)}
    try:
        engine = _open(name, {})
        return EngineStatus(
            **known,
            installed=True,
            usable=True,
            version=engine.version,
            note=engine.note,
            capabilities=engine.capabilities,
            limits=getattr(engine, "limits", ""),
        )
    except EngineUnavailable as error:
        return EngineStatus(**known, installed=installed, usable=False, reason=error.reason, remedy=error.remedy)
    except Exception as error:  # noqa: BLE001 - a plug-in may raise anything, and the list continues
        return EngineStatus(
            **known, installed=installed, usable=False, reason=str(error), remedy="correct the engine's options"
        )


def _distribution(name: str) -> str:
    if name in _registered:
        return ""
    entry = _entry_points().get(name)
    if entry is not None and entry.dist is not None:
        return entry.dist.name
    return _OURS[name][0] if name in _OURS else ""


def _after_fork() -> None:
    """Reset the lock in a child process, in which no thread holds it."""
    global _lock  # noqa: PLW0603
    _lock = threading.RLock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


@lru_cache(maxsize=1)
def _entry_points() -> dict[str, EntryPoint]:
    from importlib.metadata import entry_points  # noqa: PLC0415 - takes half of our time to import

    found: dict[str, EntryPoint] = {}
    for entry in entry_points(group=GROUP):
        found.setdefault(entry.name, entry)
    return found
