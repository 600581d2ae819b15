"""The file format of recordings: one stream, with everything that a replay needs except the modules.

A recording contains the configuration of the filters, their callbacks at the start, and then each event of the stream
with its callbacks and their hostcalls with results. Answers of the outside world (time, random numbers, shared data,
replies to callouts) are also stored as values, so that a replay can give the same answers.

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
NOT_RECORDED = {
    "code": "the file and the digest of the module are recorded instead",
    "sha256": "the same",
    "reload_interval": "a failed VM is not replaced during a request",
    "pull_policy": "the module is there",
    "match": "the filters of a request are chosen before it is recorded",
    "engine": "a replay chooses its own",
    "profile": "it is an option of the host, which is recorded",
    "module_limits": "the module was within them",
    "hostcalls": "they are functions of the embedder, and a replay has their answers",
}
"""Fields of a `FilterConfig` that a recording does not have, with the reason."""
RECORDED = tuple(each.name for each in fields(FilterConfig) if each.name not in NOT_RECORDED)
IN_OTHER_FORM = frozenset(
    ("configuration", "vm_configuration", "environment", "capabilities", "failure_policy", "limits", "isolation")
)
AS_IT_IS = tuple(name for name in RECORDED if name not in IN_OTHER_FORM)
"""Fields of a `FilterConfig` that are written unchanged: text, numbers and bools."""
BYTES = frozenset(("data", "body"))
PAIRS = frozenset(("headers", "trailers"))


@dataclass
class Event:
    """An event of the filters, with the callbacks and hostcalls that it caused."""

    event: str
    """``start``, ``reply``, ``tick``, …, or a method of `HttpStream`: ``request_headers``, ``close``, …"""
    time_ns: int
    """The time of the event in nanoseconds since 1970."""
    given: dict[str, Any] = field(default_factory=dict)
    """The content of the event: headers, data, a reply, …

    ``plugin`` is the name of the plugin that it concerns. ``nth``, if present, is the index among plugins with that
    name, in the order of `Recording.all_filters`.
    """
    did: list[str] = field(default_factory=list)
    """A line for each callback, and after it an indented line for each of its hostcalls."""
    answers: list[tuple[str, Any]] = field(default_factory=list)
    """The answers of the outside world, in order: a kind (``time``, ``random``, ``shared_data``, …) and the value."""


@dataclass
class Recording:
    """A recording of one HTTP stream through filters."""

    filters: list[FilterConfig]
    """The filters. `FilterConfig.code` is the path of the module; empty if it had none."""
    digests: list[str]
    """SHA-256 of each module."""
    start: list[Event] = field(default_factory=list)
    """Events of the filters from their start until the stream began, as far as noted."""
    events: list[Event] = field(default_factory=list)
    """Events of the stream, and those of its filters meanwhile: replies, ticks, messages in queues."""
    properties: dict[str, PropertyValue] = field(default_factory=dict)
    """The carrier's properties, by dotted name."""
    callouts: dict[str, int] = field(default_factory=dict)
    """The number of callouts, by cluster."""
    contexts: list[int] = field(default_factory=list)
    """The context ids of the stream, for each filter."""
    profile: str = "envoy"
    engine: str = ""
    """The engine on which it was recorded."""
    buffer_limit: int = BUFFER_LIMIT
    header_limits: HeaderLimits | None = None
    log_level: int = 0
    """The result of ``proxy_get_log_level``: the lowest level that was logged."""
    outcome: dict[str, Any] = field(default_factory=dict)
    """``status``, ``details``, ``reset`` and ``failure`` of the stream, those that it has."""
    cut: bool = False
    """Whether the recording has reached its limit, so that its end is missing."""
    neighbours: list[tuple[int, FilterConfig]] = field(default_factory=list)
    """Filters in the same VMs that the stream does not pass, for example because of rules. Each has the index in
    `filters` of a filter in the same VM, whose module it shares."""

    @property
    def lines(self) -> list[str]:
        """The actions of the filters, a line for each callback and hostcall."""
        return [line for event in (*self.start, *self.events) for line in event.did]

    @property
    def all_filters(self) -> list[FilterConfig]:
        """The filters of the stream and their neighbours."""
        beside = ((self.filters[at], each) for at, each in self.neighbours)
        return [*self.filters, *(replace(each, code=of.code, limits=of.limits) for of, each in beside)]

    # -- As a file -----------------------------------------------------------------------------------------------

    def dump(self) -> str:
        """The recording as JSON."""
        return json.dumps(self.as_json(), indent=1, ensure_ascii=False)

    def as_json(self) -> dict[str, Any]:
        """The recording as a JSON object."""
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
                raise ConfigError(f"{path} is a recording of version {version}; only version {VERSION} is supported")
            return cls.of_json(given)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise ConfigError(f"{path} is not a recording: {error!r}") from None

    @classmethod
    def of_json(cls, given: Mapping[str, Any]) -> Recording:
        """A recording from the result of `as_json`. Raises: KeyError, TypeError, ValueError, AttributeError."""
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
    """The number (from 1) of the first line that differs, and that line in both; ``None`` without difference."""
    for number, pair in enumerate(_side_by_side(recorded, came), 1):
        if pair[0] != pair[1]:
            return number, *pair
    return None


def _side_by_side(some: Sequence[str], others: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Pairs of lines. The shorter side is filled up with ``(the end)``."""
    most = max(len(some), len(others))
    end = ("(the end)",)
    return zip((*some, *end * (most - len(some))), (*others, *end * (most - len(others))), strict=True)


# -- JSON --------------------------------------------------------------------------------------------------------------


def _out(value: Any) -> Any:
    """A value for JSON: bytes become text, or base64 if they are not UTF-8; tuples become lists."""
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
    """A value that may be either bytes or text."""
    return b64decode(value["base64"]) if isinstance(value, dict) and value.keys() == {"base64"} else value


def _filter(filter: FilterConfig) -> dict[str, Any]:
    """The options of a filter, without its module."""
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
        **{name: told[name] for name in AS_IT_IS if name in told},
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
    """A reply from the name of its class and its fields."""
    kind = REPLIES[given["reply"]]
    read: dict[Any, Any] = {"HeaderList": _pairs, "bytes": _bytes}
    made: Reply = kind(**{each.name: read.get(each.type, _in)(given[each.name]) for each in fields(kind)})
    return made


def as_bytes(value: Any) -> bytes:
    """The bytes of an answer, in the form that `Event.answers` has after reading."""
    return value if isinstance(value, bytes) else _bytes(value)
