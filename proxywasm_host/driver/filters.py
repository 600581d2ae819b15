"""Filters to be loaded: what `Host.load_plugin` is told, as a value that can be written down before there is a host."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, fields
from typing import Any, Literal, Union

from proxywasm_host.abi.profile import Profile
from proxywasm_host.engine.protocol import Engine, Limits
from proxywasm_host.engine.registry import open_engine
from proxywasm_host.errors import ModuleError
from proxywasm_host.runtime.host import Host
from proxywasm_host.runtime.plugin import FailurePolicy, Plugin

__all__ = ["AnyFilter", "Filter", "load"]


@dataclass(frozen=True)
class Filter:
    """A filter with its configuration; the fields are those of `Host.load_plugin`."""

    code: bytes | str | os.PathLike[str] = field(repr=False)
    name: str = ""
    configuration: bytes | str = b""
    root_id: str = ""
    vm_id: str = ""
    vm_configuration: bytes | str = b""
    environment: Mapping[str, str] | None = None
    capabilities: Iterable[str] | None = None
    failure_policy: FailurePolicy | str = FailurePolicy.FAIL_CLOSED
    allow_on_headers_stop_iteration: bool = False
    reload_interval: float = 1.0
    unknown_imports: Literal["error", "stub"] = "error"
    engine: str | Engine | None = None
    profile: str | Profile | None = None
    limits: Limits | None = None


AnyFilter = Union[Filter, str, "os.PathLike[str]", bytes]
"""A filter, or only the path or the bytes of one."""


def as_filter(filter: AnyFilter) -> Filter:
    return filter if isinstance(filter, Filter) else Filter(filter)


def compile(host: Host, filters: Iterable[AnyFilter]) -> None:
    """Compile filters, so that `load` finds them in the host's cache. May run in another thread than the host's.

    What is wrong with a filter, `load` says.
    """
    for filter in map(as_filter, filters):
        with suppress(Exception):  # it comes again
            code = filter.code
            if not isinstance(code, bytes):
                with open(code, "rb") as file:
                    code = file.read()
            engine = filter.engine
            if engine is None or isinstance(engine, str):
                engine = host.engine if engine is None else open_engine(engine)
            host.cache.load(engine, code)


def load(host: Host, filters: Iterable[AnyFilter]) -> list[Plugin]:
    """Load a chain: all of the filters, or none. Raises as `Host.load_plugin`."""
    plugins: list[Plugin] = []
    try:
        for filter in map(as_filter, filters):
            given: dict[str, Any] = {each.name: getattr(filter, each.name) for each in fields(filter)}
            plugins.append(_load(host, given.pop("code"), given))
    except BaseException:
        for plugin in plugins:
            plugin.close()
        raise
    return plugins


def _load(host: Host, code: bytes | str | os.PathLike[str], given: dict[str, Any]) -> Plugin:
    try:
        return host.load_plugin(code, **given)
    except ModuleError as error:
        if isinstance(code, bytes):
            raise
        raise ModuleError(f"{os.fspath(code)}: {error}") from None
