"""`FilterConfig`: the one description of a filter and its options, before a host loads it.

`Host.load_plugin`, drivers, middlewares, ``proxywasm serve`` and the command line accept or make it. A field is the
only place that lists an option: its type, default, check and description (`option`) are also those of the argument of
`Host.load_plugin`, of the configuration of ``serve`` with its schema, and of the command line. The meaning of an option
is in the code that uses the field.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from functools import wraps
from types import NoneType
from typing import (
    Any,
    Literal,
    ParamSpec,
    Protocol,
    TypeVar,
    Union,
    cast,
    get_args,
    get_origin,
    get_type_hints,
    overload,
)

from proxywasm_host.abi.custom import CustomHostcall
from proxywasm_host.abi.module_limits import ModuleLimits
from proxywasm_host.abi.profile import Profile
from proxywasm_host.engine.protocol import Engine, Limits
from proxywasm_host.fetch.reference import PullPolicy, check_sha256, local_path, name_of, reference_of
from proxywasm_host.runtime.arguments import CHECKS, Check, among, expect, text
from proxywasm_host.runtime.failure_policy import FailurePolicy
from proxywasm_host.runtime.match import Match

__all__ = ["OPTIONS", "Code", "FilterConfig", "Option", "as_bytes", "of_filter", "plugin_names"]

Code = Union[bytes, str, "os.PathLike[str]"]
"""A module's bytes, the path of its file, or its URL: ``https://…``, ``oci://registry/name:tag``."""


def option(about: str, default: Any, check: Check | None = None, *, repr: bool = True) -> Any:
    """A field of `FilterConfig`.

    Args:
        about: the description, in the schema of ``serve`` too. Its first sentence is the help on the command line.
        default: the default.
        check: refuses wrong values; without it, the type of the field says what is wrong.
        repr: whether the value may be shown; it must not contain a secret.
    """
    return field(default=default, repr=repr, metadata={"about": about, "check": check})


def _code(value: object) -> None:
    if not isinstance(value, (str, os.PathLike, bytes, bytearray, memoryview)):
        raise TypeError(f"a filter is the path of its file, its URL, or its bytes, not {value!r}")
    if isinstance(value, str) and reference_of(value) is None:
        local_path(value)


def _configuration(value: object) -> None:
    if not isinstance(value, (str, bytes)):
        raise TypeError(f"a configuration is text or bytes, not {value!r}: encode it, with json.dumps for example")


def _capabilities(value: object) -> None:
    if isinstance(value, str):
        raise TypeError(f"capabilities are names of hostcalls and callbacks: write [{value!r}], a list")


def _names_to_text(value: Any) -> bool:
    return isinstance(value, Mapping) and all(isinstance(part, str) for pair in value.items() for part in pair)


def _seconds(value: Any) -> bool:
    return isinstance(value, (int, float)) and value >= 0


def _unchecked(value: object) -> None:
    """Refuses nothing. An engine may be registered until the filter is loaded, so `Host` checks what depends on it."""


@dataclass(frozen=True)
class FilterConfig:
    """A filter with its configuration.

    Raises: TypeError, ValueError, LookupError, for a wrong field.
    """

    code: Code = field(
        repr=False,
        metadata={
            "about": "The module's bytes, the path of its file, or its URL (docs/modules.md#where-it-comes-from).",
            "check": _code,
        },
    )
    name: str = option(
        "Name for logs, metrics and the property ``plugin_name``. If empty, the name of the file or image without its "
        "ending.",
        "",
    )
    configuration: bytes | str = option("The configuration for on_configure.", b"", _configuration, repr=False)
    root_id: str = option("Selects one of the module's filters.", "")
    vm_id: str = option(
        "Filters with the same vm_id share a VM, if code, `vm_configuration` and options of the VM are also equal.",
        "",
    )
    vm_configuration: bytes | str = option("The configuration for on_vm_start.", b"", _configuration, repr=False)
    environment: Mapping[str, str] | None = option(
        "Environment variables of the guest.",
        None,
        expect("an environment is a mapping of text to text", _names_to_text, optional=True),
        repr=False,
    )
    capabilities: Iterable[str] | None = option(
        "Names of the allowed hostcalls and callbacks. Without it, all are allowed.", None, _capabilities
    )
    failure_policy: FailurePolicy | str = option(
        "After the guest has failed, new streams are answered 503 (``fail_closed``), skip the filter (``fail_open``), "
        "or get a new guest (``fail_reload``).",
        FailurePolicy.FAIL_CLOSED,
        FailurePolicy,
    )
    allow_on_headers_stop_iteration: bool = option(
        "After PAUSE in a callback on headers, the filter still gets the body (Envoy's option of the same name).", False
    )
    reload_interval: float = option(
        "Base of the back-off of fail_reload in seconds. The back-off doubles with each VM that fails within ten times "
        "the base, up to ten times the base, and is jittered down by up to half (as in Envoy). With 0, a failed VM is "
        "replaced after the time that its start took. Then a client that makes the guest trap cannot withhold the "
        "filter from others for long, and starts take at most half of the time; for a VM that does not start, the base "
        "is 1 second.",
        1.0,
        expect("reload_interval is a number of seconds, 0 or more", _seconds),
    )
    isolation: Literal["none", "stream", "filter"] = option(
        "``none``: streams share the plugin's VM; ``stream``: each stream gets a VM for all of its filters of one "
        "module; ``filter``: for each of its filters. Only with the profile ``wasmx``.",
        "none",
    )
    unknown_imports: Literal["error", "stub"] = option(
        "``error``: an unknown ``proxy_*`` import is an error; ``stub``: it answers UNIMPLEMENTED.", "error"
    )
    sha256: str = option("SHA-256 digest that the module, or an image's manifest, must have.", "", check_sha256)
    pull_policy: PullPolicy | None = option(
        "``Always``: look up a URL without a digest, even if its module is in the cache; ``IfNotPresent``: only if it "
        "is not. The default is ``IfNotPresent``; for an image's tag ``latest`` it is ``Always``.",
        None,
    )
    match: Match | None = option(
        "The requests that pass the filter in a driver, a middleware or a server. Without it, all do.",
        None,
        expect("a match is Match(hosts=…, paths=…)", lambda value: isinstance(value, Match), optional=True),
    )
    # These override options of the host.
    engine: str | Engine | None = option("Overrides the engine of all filters.", None, _unchecked)
    profile: str | Profile | None = option("Overrides the profile of all filters.", None, CHECKS["profile"])
    limits: Limits | None = option("Overrides the limits of all filters.", None, CHECKS["limits"])
    module_limits: ModuleLimits | None = option("Overrides the limits on all modules.", None, _unchecked)
    hostcalls: Iterable[CustomHostcall] | None = option("Your hostcalls for this filter alone.", None, _unchecked)

    def __post_init__(self) -> None:
        given = {name: getattr(self, name) for name in OPTIONS}
        for name, value in given.items():
            OPTIONS[name].check(value)
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


@dataclass(frozen=True)
class Option:
    """An option of a filter: a field of `FilterConfig`, for code that makes another form of it."""

    kind: Any
    """Its type, as in annotations."""
    default: Any
    values: tuple[Any, ...]
    """The values that it may have besides ``None``, if it is a choice."""
    about: str
    """The description, in several sentences."""
    check: Check
    """Refuses wrong values."""

    @property
    def plain(self) -> bool:
        """Whether it is text, a number, a bool or a choice: files and the command line have no other form of it."""
        return bool(self.values) or self.kind in (str, int, float, bool)

    @classmethod
    def of(cls, name: str, kind: Any, default: Any, about: str, check: Check | None) -> Option:
        """An option from its field."""
        literal = next((each for each in (kind, *get_args(kind)) if get_origin(each) is Literal), None)
        values = tuple(FailurePolicy) if FailurePolicy in get_args(kind) else get_args(literal)
        if check is None and values:
            check = among(name, values, optional=NoneType in get_args(kind))
        return cls(kind, default, values, about, check or (text(name) if kind is str else _unchecked))


OPTIONS: Mapping[str, Option] = {
    each.name: Option.of(each.name, kind, each.default, **each.metadata)
    for each, kind in zip(fields(FilterConfig), get_type_hints(FilterConfig).values(), strict=True)
}
"""By name, all options of a filter."""


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
