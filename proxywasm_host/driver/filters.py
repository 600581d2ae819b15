"""Reads, compiles and loads the chains of filters of a carrier."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, fields
from typing import Any, TypeVar, Union

from proxywasm_host.driver.defaults import FAILURE_POLICY, RELOAD_INTERVAL
from proxywasm_host.errors import ModuleError
from proxywasm_host.runtime.failure_policy import FailurePolicy
from proxywasm_host.runtime.filter_config import Code, FilterConfig
from proxywasm_host.runtime.host import Host
from proxywasm_host.runtime.plugin import Plugin

__all__ = ["DEFAULTS", "AnyFilter", "Filter", "by_request", "chain", "compile", "load", "pin"]

CODE = (bytes, str, os.PathLike)
Result = TypeVar("Result")


@dataclass(frozen=True, repr=False)
class Filter(FilterConfig):
    """A `FilterConfig` with the defaults of carriers: a guest that fails is replaced for the next stream."""

    failure_policy: FailurePolicy | str = FAILURE_POLICY
    reload_interval: float = RELOAD_INTERVAL


DEFAULTS: Mapping[str, Any] = {each.name: each.default for each in fields(Filter)}
"""The defaults of a `Filter`, by option."""
AnyFilter = Union[FilterConfig, Code]
"""A filter, or only the path or the bytes of its module."""


def chain(filters: Any) -> list[FilterConfig]:
    """Check the filters of a chain. Raises: TypeError, for a value that is not a list of filters."""
    if isinstance(filters, FilterConfig):
        raise _no_list(f"{type(filters).__name__}(…)")
    if isinstance(filters, CODE) or not isinstance(filters, Iterable):
        raise _no_list("code" if isinstance(filters, bytes) else repr(filters))
    return [_filter(each) for each in filters]


def by_request(filters: Iterable[FilterConfig]) -> bool:
    """Whether some of the filters apply only to certain requests (`matching`)."""
    return any(filter.match is not None for filter in filters)


def _no_list(shown: str) -> TypeError:
    return TypeError(f"filters are a list, even for one filter: write [{shown}]")


def _filter(given: Any) -> FilterConfig:
    if isinstance(given, FilterConfig):
        return given
    if not isinstance(given, CODE):
        raise TypeError(f"a filter is the path of a module, its bytes, or a Filter with one; not {given!r}")
    return Filter(given)


def pin(host: Host, filters: Iterable[AnyFilter]) -> list[FilterConfig]:
    """Fetch modules for `load`. Returns the filters, each with the digest of the module that its URL names now.

    It waits for servers, and may run in a thread other than the host's. Raises: ModuleError.
    """
    return [_said_of(filter, host.pin) for filter in chain(filters)]


def compile(host: Host, filters: Iterable[AnyFilter]) -> None:
    """Compile filters, so that `load` finds them in the host's cache. It may run in a thread other than the host's.

    `load` reports errors of a filter.
    """
    for filter in chain(filters):
        with suppress(Exception):  # `load` raises it again
            host.compile(filter)


def load(host: Host, filters: Iterable[AnyFilter]) -> list[Plugin]:
    """Load all filters of a chain, or none. Raises the errors of `Host.load_plugin`."""
    plugins: list[Plugin] = []
    try:
        plugins.extend(_said_of(filter, host.load_plugin) for filter in chain(filters))
    except BaseException:
        for plugin in plugins:
            plugin.close()
        raise
    return plugins


def _said_of(filter: FilterConfig, do: Callable[[FilterConfig], Result]) -> Result:
    """Call a function with a filter. Errors about its module name the source of the module."""
    try:
        return do(filter)
    except ModuleError as error:
        if isinstance(filter.code, bytes):
            raise
        raise type(error)(f"{os.fspath(filter.code)}: {error}") from None
