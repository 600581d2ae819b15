"""`FilterConfig`: the one description of a filter and its options, before a host loads it.

`Host.load_plugin`, drivers, middlewares, ``proxywasm serve`` and the command line accept or make it. An option of a
filter is a field here and a check in `runtime.arguments`; its meaning is in the code that uses the field.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from functools import wraps
from typing import Any, Literal, ParamSpec, Protocol, TypeVar, Union, cast, overload

from proxywasm_host.abi.custom import CustomHostcall
from proxywasm_host.abi.module_limits import ModuleLimits
from proxywasm_host.abi.profile import Profile
from proxywasm_host.engine.protocol import Engine, Limits
from proxywasm_host.fetch.reference import PullPolicy, name_of
from proxywasm_host.runtime.arguments import check_arguments
from proxywasm_host.runtime.failure_policy import FailurePolicy
from proxywasm_host.runtime.match import Match

__all__ = ["Code", "FilterConfig", "as_bytes", "of_filter", "plugin_names"]

Code = Union[bytes, str, "os.PathLike[str]"]
"""A module's bytes, the path of its file, or its URL: ``https://…``, ``oci://registry/name:tag``."""
LATER = "engine", "hostcalls", "module_limits"
"""Fields that are checked when the filter is loaded, because an engine may be registered until then."""


@dataclass(frozen=True)
class FilterConfig:
    """A filter with its configuration.

    Raises: TypeError, ValueError, LookupError, for a wrong field.
    """

    code: Code = field(repr=False)
    """The module's bytes, the path of its file, or its URL (docs/modules.md#where-it-comes-from)."""
    name: str = ""
    """Name for logs and the property ``plugin_name``; if empty, the name of the file or image without its ending."""
    configuration: bytes | str = field(default=b"", repr=False)
    """The configuration for on_configure."""
    root_id: str = ""
    """Selects one of the module's plugins."""
    vm_id: str = ""
    """Plugins with the same vm_id, `vm_configuration`, code and options of the VM share a VM."""
    vm_configuration: bytes | str = field(default=b"", repr=False)
    """The configuration for on_vm_start."""
    environment: Mapping[str, str] | None = field(default=None, repr=False)
    """Environment variables of the guest."""
    capabilities: Iterable[str] | None = None
    """Names of the allowed hostcalls and callbacks; ``None`` allows all."""
    failure_policy: FailurePolicy | str = FailurePolicy.FAIL_CLOSED
    """The handling of new streams after the guest has failed."""
    allow_on_headers_stop_iteration: bool = False
    """After PAUSE in a callback on headers, the filter still gets the body (Envoy's option of the same name)."""
    reload_interval: float = 1.0
    """Base of the back-off of FAIL_RELOAD in seconds. The back-off doubles with each VM that fails within ten times the
    base, up to ten times the base, and is jittered down by up to half (as in Envoy). With 0, a failed VM is replaced
    after the time that its start took. Then a client that makes the guest trap cannot withhold the filter from others
    for long, and starts take at most half of the time; for a VM that does not start, the base is 1 second.
    """
    isolation: Literal["none", "stream", "filter"] = "none"
    """``none``: streams share the plugin's VM. ``stream``: each stream gets a VM for all of its filters of one module;
    ``filter``: for each of its filters. Only with the profile ``wasmx`` (`proxywasm_host.runtime.isolation`)."""
    unknown_imports: Literal["error", "stub"] = "error"
    """``error``: an unknown ``proxy_*`` import is an error; ``stub``: it answers UNIMPLEMENTED."""
    sha256: str = ""
    """SHA-256 digest that the module, or an image's manifest, must have; otherwise it is refused."""
    pull_policy: PullPolicy | None = None
    """``Always``: look up a URL without a digest, even if its module is in the cache; ``IfNotPresent``: only if it is
    not. The default is ``IfNotPresent``; for an image's tag ``latest`` it is ``Always``.
    """
    match: Match | None = None
    """The requests that pass the filter in a driver, a middleware or a server; ``None`` for all."""
    engine: str | Engine | None = None
    """Overrides the host's engine. The next fields override options of the host as well."""
    profile: str | Profile | None = None
    limits: Limits | None = None
    module_limits: ModuleLimits | None = None
    hostcalls: Iterable[CustomHostcall] | None = None

    def __post_init__(self) -> None:
        given = {each.name: getattr(self, each.name) for each in fields(self)}
        check_arguments(**{name: value for name, value in given.items() if name not in LATER})
        if isinstance(self.code, (bytearray, memoryview)):
            object.__setattr__(self, "code", bytes(self.code))
        object.__setattr__(self, "failure_policy", FailurePolicy(self.failure_policy))
        for name, kind in (("capabilities", frozenset), ("hostcalls", tuple)):  # an iterator can be read only once
            if isinstance(given[name], Iterator):
                object.__setattr__(self, name, kind(given[name]))

    def __repr__(self) -> str:
        """The fields without defaults, and without those that may contain a secret."""
        source = f"<{len(self.code)} bytes>" if isinstance(self.code, bytes) else repr(os.fspath(self.code))
        given = [(each.name, getattr(self, each.name)) for each in fields(self) if each.repr]
        defaults = {each.name: each.default for each in fields(self)}
        shown = [f"{name}={value!r}" for name, value in given if value != defaults[name]]
        return f"{type(self).__name__}({', '.join([source, *shown])})"

    @property
    def plugin_name(self) -> str:
        """The name of the plugin that is loaded from it."""
        return self.name if self.name or isinstance(self.code, bytes) else name_of(self.code)


P = ParamSpec("P")
Loaded_co = TypeVar("Loaded_co", covariant=True)


class Load(Protocol[P, Loaded_co]):
    """A method that accepts a `FilterConfig`, or the arguments of one."""

    @overload
    def __call__(self, filter: FilterConfig, /) -> Loaded_co: ...
    @overload
    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> Loaded_co: ...


def of_filter(
    config: Callable[P, FilterConfig],
) -> Callable[[Callable[[Any, FilterConfig], Loaded_co]], Load[P, Loaded_co]]:
    """Let a method that accepts a `FilterConfig` accept its fields too, so that only `FilterConfig` lists them."""

    def decorate(method: Callable[[Any, FilterConfig], Loaded_co]) -> Load[P, Loaded_co]:
        @wraps(method)
        def load(self: Any, *args: Any, **options: Any) -> Loaded_co:
            written_down = len(args) == 1 and isinstance(args[0], FilterConfig) and not options
            return method(self, args[0] if written_down else config(*args, **options))

        return cast("Load[P, Loaded_co]", load)

    return decorate


def plugin_names(filters: Sequence[FilterConfig]) -> list[str]:
    """A name for each filter of a chain: its own name, with its place if several filters have that name."""
    names = [filter.plugin_name for filter in filters]
    several = {name for name, times in Counter(names).items() if times > 1}
    return [f"{name}-{place}" if name in several else name for place, name in enumerate(names, 1)]


def as_bytes(text: bytes | str) -> bytes:
    """A configuration as the bytes that guests read."""
    return text.encode() if isinstance(text, str) else text
