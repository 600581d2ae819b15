"""Filters to be loaded: what `Host.load_plugin` is told, as a value that can be written down before there is a host."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Literal, Union

from proxywasm_host.abi.custom import CustomHostcall
from proxywasm_host.abi.profile import Profile
from proxywasm_host.driver.defaults import FAILURE_POLICY, RELOAD_INTERVAL
from proxywasm_host.engine.protocol import Engine, Limits
from proxywasm_host.engine.registry import open_engine
from proxywasm_host.errors import ModuleError
from proxywasm_host.runtime.arguments import check_arguments
from proxywasm_host.runtime.host import Host
from proxywasm_host.runtime.plugin import FailurePolicy, Plugin

__all__ = ["AnyFilter", "Filter", "chain", "compile", "load"]

CODE = (bytes, str, os.PathLike)
LATER = "code", "engine", "hostcalls"
"""What is looked at when the filter is loaded: an engine may be registered until then."""


@dataclass(frozen=True)
class Filter:
    """A filter with its configuration; the fields are those of `Host.load_plugin`.

    Unlike there, a guest that fails is replaced for the next stream if nothing else is said.

    Raises: TypeError, ValueError, LookupError, for what is none of these.
    """

    code: bytes | str | os.PathLike[str] = field(repr=False)
    name: str = ""
    configuration: bytes | str = b""
    root_id: str = ""
    vm_id: str = ""
    vm_configuration: bytes | str = b""
    environment: Mapping[str, str] | None = None
    capabilities: Iterable[str] | None = None
    failure_policy: FailurePolicy | str = FAILURE_POLICY
    allow_on_headers_stop_iteration: bool = False
    reload_interval: float = RELOAD_INTERVAL
    unknown_imports: Literal["error", "stub"] = "error"
    engine: str | Engine | None = None
    profile: str | Profile | None = None
    limits: Limits | None = None
    hostcalls: Iterable[CustomHostcall] | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.code, CODE):
            raise TypeError(f"a filter is the path of a module, its bytes, or a Filter with one; not {self.code!r}")
        given = {each.name: getattr(self, each.name) for each in fields(self)}
        check_arguments(**{name: value for name, value in given.items() if name not in LATER})

    @property
    def plugin_name(self) -> str:
        """What the plugin will be called."""
        return self.name or ("" if isinstance(self.code, bytes) else Path(self.code).stem)


AnyFilter = Union[Filter, str, "os.PathLike[str]", bytes]
"""A filter, or only the path or the bytes of one."""


def chain(filters: Any) -> list[Filter]:
    """The filters of a chain. Raises: TypeError, for what is no list of filters."""
    if isinstance(filters, (*CODE, Filter)) or not isinstance(filters, Iterable):
        shown = "Filter(…)" if isinstance(filters, Filter) else "code" if isinstance(filters, bytes) else repr(filters)
        raise TypeError(f"filters are a list, also if there is one: write [{shown}]")
    return [each if isinstance(each, Filter) else Filter(each) for each in filters]


def compile(host: Host, filters: Iterable[AnyFilter]) -> None:
    """Compile filters, so that `load` finds them in the host's cache. May run in another thread than the host's.

    What is wrong with a filter, `load` says.
    """
    for filter in chain(filters):
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
        for filter in chain(filters):
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
