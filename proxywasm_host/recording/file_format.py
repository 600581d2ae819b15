"""The file format of recordings: one stream, with everything that a replay needs beside the modules.

It holds the configuration of the filters, their callbacks at the start, and then each event of the stream with its
callbacks, and in each callback the hostcalls with their answers. Answers of the outside world (time, random numbers,
shared data, replies to callouts) are there a second time as values, so that a replay can answer the same.

The file is JSON: an event is an object, and a callback or hostcall is a line.
"""

from __future__ import annotations

import json
from base64 import b64decode, b64encode
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, get_args

from proxywasm_host.abi.pairs import HeaderList
from proxywasm_host.abi.values import PropertyValue
from proxywasm_host.engine.protocol import Limits
from proxywasm_host.errors import ConfigError
from proxywasm_host.runtime.effects import Reply
from proxywasm_host.runtime.fast_path import BUFFER_LIMIT
from proxywasm_host.runtime.filter_config import FilterConfig
from proxywasm_host.runtime.header_limits import HeaderLimits

__all__ = ["Event", "Recording", "first_difference"]

VERSION = 1
REPLIES: dict[str, Any] = {kind.__name__: kind for kind in get_args(Reply)}
AS_IT_IS = ("name", "root_id", "vm_id", "allow_on_headers_stop_iteration", "unknown_imports")
"""Fields of a `FilterConfig` that are written unchanged."""
BYTES = frozenset(("data", "body"))
PAIRS = frozenset(("headers", "trailers"))


@dataclass
class Event:
    """An event of the filters, with the callbacks and hostcalls that it caused."""

    event: str
    """``start``, ``request_headers``, ``reply``, ``tick``, ``close``, …: a method of `HttpStream`, or one of these."""
    time_ns: int
    """When it happened: nanoseconds since 1970."""
    given: dict[str, Any] = field(default_factory=dict)
    """What came: headers, data, a reply, …

    ``plugin`` is the name of whom it concerns. ``nth``, if there, says which of several of that name, from 0, in the
    order of `Recording.everyone`.
    """
    did: list[str] = field(default_factory=list)
    """The callbacks, and indented after each the hostcalls in it."""
    answers: list[tuple[str, Any]] = field(default_factory=list)
    """What the outside world answered, in order: ``time``, ``random``, ``shared_data``, …, and the value."""


@dataclass
class Recording:
    """One HTTP stream through filters."""

    filters: list[FilterConfig]
    """`FilterConfig.code` is the file's path; empty where the module had none."""
    digests: list[str]
    """SHA-256 of each module."""
    start: list[Event] = field(default_factory=list)
    """Events of the filters from their start until the stream began, as far as they were noted."""
    events: list[Event] = field(default_factory=list)
    """Those of the stream, and meanwhile those of its filters: replies, ticks, messages in queues."""
    properties: dict[str, PropertyValue] = field(default_factory=dict)
    """The carrier's properties, by dotted name."""
    callouts: dict[str, int] = field(default_factory=dict)
    """How many callouts were made, by cluster."""
    contexts: list[int] = field(default_factory=list)
    """The context ids of the stream, for each filter."""
    profile: str = "envoy"
    engine: str = ""
    """On which it was recorded."""
    buffer_limit: int = BUFFER_LIMIT
    header_limits: HeaderLimits | None = None
    log_level: int = 0
    """The lowest level that was logged, for ``proxy_get_log_level``."""
    outcome: dict[str, Any] = field(default_factory=dict)
    """``status``, ``details``, ``reset`` and ``failure`` of the stream, as far as there are."""
    cut: bool = False
    """It grew beyond its limit: what came later is missing."""
    neighbours: list[tuple[int, FilterConfig]] = field(default_factory=list)
    """Filters in the same VMs that the stream does not pass, as those of other rules: each with the place in `filters`
    of one in its VM, whose module it has."""

    @property
    def lines(self) -> list[str]:
        """What the filters did, a line for each callback and hostcall."""
        return [line for event in (*self.start, *self.events) for line in event.did]

    @property
    def everyone(self) -> list[FilterConfig]:
        """The filters and their neighbours."""
        beside = ((self.filters[at], each) for at, each in self.neighbours)
        return [*self.filters, *(replace(each, code=of.code, limits=of.limits) for of, each in beside)]

    # -- As a file -----------------------------------------------------------------------------------------------

    def dump(self) -> str:
        """The recording as JSON."""
        return json.dumps(self.as_json(), indent=1, ensure_ascii=False)

    def as_json(self) -> dict[str, Any]:
        """The recording as JSON has it."""
        limits = self.header_limits
        return {
            "recording": VERSION,
            "engine": self.engine,
            "profile": self.profile,
            "outcome": self.outcome,
            "cut": self.cut,
            "buffer_limit": self.buffer_limit,
            "header_limits": None if limits is None else {"count": limits.count, "size": limits.size},
            "log_level": self.log_level,
            "properties": {name: _out(value) for name, value in self.properties.items()},
            "callouts": self.callouts,
            "contexts": self.contexts,
            "filters": [
                {"file": str(filter.code), "sha256": digest, **_filter(filter)}
                for filter, digest in zip(self.filters, self.digests, strict=True)
            ],
            **(
                {"neighbours": [{"of": at, **_filter(filter)} for at, filter in self.neighbours]}
                if self.neighbours
                else {}
            ),
            "start": [_event(event) for event in self.start],
            "events": [_event(event) for event in self.events],
        }  # fmt: skip

    @classmethod
    def load(cls, path: str | Path) -> Recording:
        """Read a recording. Raises: OSError; ConfigError, if the file is not a recording."""
        try:
            given = json.loads(Path(path).read_text(encoding="utf-8"))
            version = given["recording"]
            if version != VERSION:
                raise ConfigError(f"{path}: a recording of version {version}, where {VERSION} is known")
            return cls.of_json(given)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise ConfigError(f"{path} is not a recording: {error!r}") from None

    @classmethod
    def of_json(cls, given: Mapping[str, Any]) -> Recording:
        """A recording that `as_json` has made. Raises: KeyError, TypeError, ValueError, AttributeError."""
        limits = given["header_limits"]
        return cls(
            [_filter_of(each["file"], each) for each in given["filters"]],
            [each["sha256"] for each in given["filters"]],
            [_event_of(event) for event in given["start"]],
            [_event_of(event) for event in given["events"]],
            {name: _in(value) for name, value in given["properties"].items()},
            header_limits=None if limits is None else HeaderLimits(**limits),
            neighbours=[(each["of"], _filter_of("", each)) for each in given.get("neighbours", ())],
            **{
                name: given[name]
                for name in ("callouts", "contexts", "profile", "engine", "buffer_limit", "log_level", "outcome", "cut")
            },
        )


def first_difference(recorded: Sequence[str], came: Sequence[str]) -> tuple[int, str, str] | None:
    """The first line, from 1, that is not the same in both, with what it is in each; ``None``, if there is none."""
    for number, pair in enumerate(_side_by_side(recorded, came), 1):
        if pair[0] != pair[1]:
            return number, *pair
    return None


def _side_by_side(some: Sequence[str], others: Sequence[str]) -> Iterator[tuple[str, str]]:
    """The shorter one ends in lines that say so."""
    most = max(len(some), len(others))
    end = ("(the end)",)
    return zip((*some, *end * (most - len(some))), (*others, *end * (most - len(others))), strict=True)


# -- JSON --------------------------------------------------------------------------------------------------------------


def _out(value: Any) -> Any:
    """A value as JSON has it: bytes as text, or as base64 if they are none; a tuple as a list."""
    if isinstance(value, bytes):
        try:
            return value.decode()
        except UnicodeDecodeError:
            return {"base64": b64encode(value).decode()}
    if isinstance(value, (list, tuple)):
        return [_out(item) for item in value]
    if type(value).__name__ in REPLIES:
        return {"reply": type(value).__name__, **{each.name: _out(getattr(value, each.name)) for each in fields(value)}}
    if isinstance(value, dict):
        return {name: _out(item) for name, item in value.items()}
    return value


def _bytes(value: Any) -> bytes:
    return b64decode(value["base64"]) if isinstance(value, dict) else value.encode()


def _in(value: Any) -> Any:
    """A value of which it does not matter whether it is bytes or text."""
    return b64decode(value["base64"]) if isinstance(value, dict) and value.keys() == {"base64"} else value


def _filter(filter: FilterConfig) -> dict[str, Any]:
    """How a filter was loaded, without its module."""
    limits = filter.limits
    return {
        "configuration": _out(filter.configuration),
        "vm_configuration": _out(filter.vm_configuration),
        "environment": dict(filter.environment or {}),
        "capabilities": None if filter.capabilities is None else sorted(filter.capabilities),
        "failure_policy": filter.failure_policy.value,  # type: ignore[union-attr]
        "limits": None if limits is None else {"memory": limits.memory, "deadline": limits.deadline},
        **({} if filter.isolation == "none" else {"isolation": filter.isolation}),
        **{name: getattr(filter, name) for name in AS_IT_IS},
    }


def _filter_of(file: str, told: Mapping[str, Any]) -> FilterConfig:
    return FilterConfig(
        file,
        configuration=_bytes(told["configuration"]),
        vm_configuration=_bytes(told["vm_configuration"]),
        environment=told["environment"],
        capabilities=told["capabilities"],
        failure_policy=told["failure_policy"],
        limits=None if told["limits"] is None else Limits(**told["limits"]),
        isolation=told.get("isolation", "none"),
        **{name: told[name] for name in AS_IT_IS},
    )


def _pairs(pairs: Iterable[Sequence[Any]]) -> HeaderList:
    return [(_bytes(name), _bytes(value)) for name, value in pairs]


def _event(event: Event) -> dict[str, Any]:
    told = {"event": event.event, "time_ns": event.time_ns, **{name: _out(each) for name, each in event.given.items()}}
    if event.answers:
        told["answers"] = [[name, _out(answer)] for name, answer in event.answers]
    return {**told, "did": event.did}


def _event_of(told: Mapping[str, Any]) -> Event:
    given = dict(told)
    name, time_ns, did = given.pop("event"), given.pop("time_ns"), given.pop("did")
    answers = [(call, answer) for call, answer in given.pop("answers", ())]
    return Event(name, time_ns, {key: _given(key, value) for key, value in given.items()}, did, answers)


def _given(name: str, value: Any) -> Any:
    if name in BYTES:
        return _bytes(value)
    if name in PAIRS:
        return _pairs(value)
    return _reply(value) if name == "reply" else _in(value)


def _reply(given: Mapping[str, Any]) -> Reply:
    """A reply by the name of its class and its fields."""
    kind = REPLIES[given["reply"]]
    read: dict[Any, Any] = {"HeaderList": _pairs, "bytes": _bytes}
    made: Reply = kind(**{each.name: read.get(each.type, _in)(given[each.name]) for each in fields(kind)})
    return made


def as_bytes(value: Any) -> bytes:
    """An answer that is bytes, as `Event.answers` has it after it was read."""
    return value if isinstance(value, bytes) else _bytes(value)
