"""`FilterConfig`: the one description of a filter and its options, before a host loads it.

`Host.load_plugin`, drivers, middlewares, ``proxywasm serve`` and the command line take it or make it. An option of a
filter is a field here and a check in `runtime.arguments`; what it means stands where it is used.
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
"""A module's bytes, the path of its file, or where it is fetched from: ``https://…``, ``oci://registry/name:tag``."""
LATER = "engine", "hostcalls", "module_limits"
"""What is looked at when the filter is loaded: an engine may be registered until then."""


@dataclass(frozen=True)
class FilterConfig:
    """A filter with its configuration.

    Raises: TypeError, ValueError, LookupError, for a field that cannot be what it is.
    """

    code: Code = field(repr=False)
    """The module's bytes, the path of its file, or where it is fetched from (docs/modules.md#where-it-comes-from)."""
    name: str = ""
    """For logs and the property ``plugin_name``; that of the file or image, without its ending, if empty."""
    configuration: bytes | str = field(default=b"", repr=False)
    """What on_configure can read."""
    root_id: str = ""
    """Which of a module's plugins is meant."""
    vm_id: str = ""
    """Plugins that agree in this, in `vm_configuration`, in the code and in the options of the VM share a VM."""
    vm_configuration: bytes | str = field(default=b"", repr=False)
    """What on_vm_start can read."""
    environment: Mapping[str, str] | None = field(default=None, repr=False)
    """Environment variables of the guest."""
    capabilities: Iterable[str] | None = None
    """Names of the hostcalls and callbacks that are allowed; ``None`` is all."""
    failure_policy: FailurePolicy | str = FailurePolicy.FAIL_CLOSED
    """What new streams get after the guest has trapped."""
    allow_on_headers_stop_iteration: bool = False
    """PAUSE from a callback on headers lets the body come to the filter (Envoy's option of the same name)."""
    reload_interval: float = 1.0
    """Base of the back-off of FAIL_RELOAD in seconds. It doubles with each VM that fails within ten times the base, up
    to ten times the base, and is jittered down by up to half (as in Envoy). With 0 a VM that had started is replaced at
    once, so that a client that can make a guest trap keeps it from nobody else; only as much time goes by as the start
    took, so that half of the time at most goes into starts. One that does not start is backed off from
    `Plugin.START_BACKOFF` on.
    """
    isolation: Literal["none", "stream", "filter"] = "none"
    """Whether streams share the plugin's VM, or each has one of its own: for all of its filters of one module
    (``stream``), or for each of them (``filter``). Of the profile ``wasmx`` (`proxywasm_host.runtime.isolation`)."""
    unknown_imports: Literal["error", "stub"] = "error"
    """Whether a ``proxy_*`` import that is not known is an error, or answers UNIMPLEMENTED."""
    sha256: str = ""
    """The SHA-256 digest that the module must have; for an image its manifest. Another is refused."""
    pull_policy: PullPolicy | None = None
    """Whether a URL without a digest is looked up although there is a module of it (``Always``), or not
    (``IfNotPresent``). If not given: not, but for an image's tag ``latest``.
    """
    match: Match | None = None
    """Which requests pass the filter where a driver, a middleware or a server has the chain; all if not given."""
    engine: str | Engine | None = None
    """Instead of the host's; so are those that follow."""
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
        for name, kind in (("capabilities", frozenset), ("hostcalls", tuple)):  # an iterator could be read but once
            if isinstance(given[name], Iterator):
                object.__setattr__(self, name, kind(given[name]))

    def __repr__(self) -> str:
        """What it is made of, but for defaults, and for what may hold a secret."""
        source = f"<{len(self.code)} bytes>" if isinstance(self.code, bytes) else repr(os.fspath(self.code))
        given = [(each.name, getattr(self, each.name)) for each in fields(self) if each.repr]
        defaults = {each.name: each.default for each in fields(self)}
        shown = [f"{name}={value!r}" for name, value in given if value != defaults[name]]
        return f"{type(self).__name__}({', '.join([source, *shown])})"

    @property
    def plugin_name(self) -> str:
        """What the plugin will be called."""
        return self.name if self.name or isinstance(self.code, bytes) else name_of(self.code)


P = ParamSpec("P")
Loaded_co = TypeVar("Loaded_co", covariant=True)


class Load(Protocol[P, Loaded_co]):
    """A method that takes a `FilterConfig`, or the arguments that one is made of."""

    @overload
    def __call__(self, filter: FilterConfig, /) -> Loaded_co: ...
    @overload
    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> Loaded_co: ...


def of_filter(
    config: Callable[P, FilterConfig],
) -> Callable[[Callable[[Any, FilterConfig], Loaded_co]], Load[P, Loaded_co]]:
    """Let a method that takes a `FilterConfig` take its fields as well, so that they are spelled there alone."""

    def decorate(method: Callable[[Any, FilterConfig], Loaded_co]) -> Load[P, Loaded_co]:
        @wraps(method)
        def load(self: Any, *args: Any, **options: Any) -> Loaded_co:
            written_down = len(args) == 1 and isinstance(args[0], FilterConfig) and not options
            return method(self, args[0] if written_down else config(*args, **options))

        return cast("Load[P, Loaded_co]", load)

    return decorate


def plugin_names(filters: Sequence[FilterConfig]) -> list[str]:
    """A name for each filter of a chain: its own, with its place if several would be called so."""
    names = [filter.plugin_name for filter in filters]
    several = {name for name, times in Counter(names).items() if times > 1}
    return [f"{name}-{place}" if name in several else name for place, name in enumerate(names, 1)]


def as_bytes(text: bytes | str) -> bytes:
    """A configuration as guests read it."""
    return text.encode() if isinstance(text, str) else text
