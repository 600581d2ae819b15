"""Replaces the module `_proxywasm` under CPython: passes hostcalls to the host of the running test."""

from __future__ import annotations

from copy import copy as like
from typing import Any

__all__ = ["install", "like"]

_installed: list[Any] = []
_given: dict[str, Any] = {}


def install(host: Any) -> None:
    """Pass hostcalls to `host`, an object with the functions of `_proxywasm`."""
    _installed[:] = [host]
    for name, value in _given.items():
        getattr(host, name)(value)


def _keep(name: str) -> Any:
    def call(value: Any) -> None:
        _given[name] = value
        for host in _installed:
            getattr(host, name)(value)

    return call


error = _keep("error")
handlers = _keep("handlers")


def __getattr__(name: str) -> Any:
    if name.startswith("__"):
        raise AttributeError(name)
    if not _installed:
        raise RuntimeError("there is no host: run the filter in a test, with proxywasm.testing")
    return getattr(_installed[0], name)
