"""A request through filters as one file, to be run again without anything else than the module.

What is recorded: the filters' configurations, the request, upstream's response, the answers of callouts, properties,
the time and the seed of random numbers; and what the filters were called with and did. A recording is made of an
exchange whose time stands still, so that the same module does the same again: a difference is the module's, or the
engine's.
"""

from __future__ import annotations

import json
from base64 import b64decode, b64encode
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from hashlib import sha256
from pathlib import Path
from random import Random
from typing import Any, get_args

from proxywasm_host.abi.marshal import Call
from proxywasm_host.abi.pairs import HeaderList
from proxywasm_host.abi.values import PropertyValue
from proxywasm_host.engine.protocol import Limits
from proxywasm_host.errors import ConfigError
from proxywasm_host.runtime.effects import Callout, Reply
from proxywasm_host.runtime.failure import Failure, PluginError, describe
from proxywasm_host.runtime.filter_config import FilterConfig
from proxywasm_host.runtime.host import Host
from proxywasm_host.services import GuestLog, ManualClock, Services
from proxywasm_host.testing.message import Message
from proxywasm_host.testing.record import Invocation, Recorder
from proxywasm_host.testing.result import Exchange
from proxywasm_host.testing.run import Answer, exchange

__all__ = ["Recording", "Replay", "settle"]

VERSION = 1
REPLIES: dict[str, Any] = {kind.__name__: kind for kind in get_args(Reply)}
FIELDS = ("name", "root_id", "vm_id", "allow_on_headers_stop_iteration", "unknown_imports")
"""Of a `FilterConfig`, what is written down as it is."""


@dataclass
class Recording:
    """All that a replay needs beside the modules, and what came of it when it was recorded."""

    filters: list[FilterConfig]
    """`FilterConfig.code` is the file's path."""
    digests: list[str]
    """SHA-256 of each module."""
    request: Message
    response: Message
    callouts: dict[str, list[list[Reply]]] = field(default_factory=dict)
    """By cluster, what each callout to it was answered; the last answer holds for those that are made beyond."""
    properties: dict[str, PropertyValue] = field(default_factory=dict)
    profile: str = "envoy"
    ticks: int = 0
    time_ns: int = 1_700_000_000_000_000_000
    seed: int = 0
    engine: str = ""
    """On which it was recorded."""
    transcript: list[str] = field(default_factory=list)
    """What the filters were called with, did and logged, a line each."""

    # -- As a file -----------------------------------------------------------------------------------------------

    def dump(self) -> str:
        """The recording as JSON."""
        return json.dumps(
            {
                "recording": VERSION,
                "engine": self.engine,
                "profile": self.profile,
                "time_ns": self.time_ns,
                "seed": self.seed,
                "ticks": self.ticks,
                "properties": {name: _text(value) for name, value in self.properties.items()},
                "filters": [
                    {
                        "file": str(filter.code),
                        "sha256": digest,
                        "configuration": _text(filter.configuration),
                        "vm_configuration": _text(filter.vm_configuration),
                        "environment": dict(filter.environment or {}),
                        "failure_policy": filter.failure_policy.value,  # type: ignore[union-attr]
                        **{name: getattr(filter, name) for name in FIELDS},
                    }
                    for filter, digest in zip(self.filters, self.digests, strict=True)
                ],
                "request": _message(self.request),
                "response": _message(self.response),
                "callouts": {
                    cluster: [[_reply(reply) for reply in answer] for answer in answers]
                    for cluster, answers in self.callouts.items()
                },
                "transcript": self.transcript,
            },
            indent=1,
            ensure_ascii=False,
        )

    @classmethod
    def load(cls, path: Path) -> Recording:
        """Read a recording. Raises: OSError; ConfigError, if it is none."""
        try:
            given = json.loads(path.read_text(encoding="utf-8"))
            version = given["recording"]
            if version != VERSION:
                raise ConfigError(f"{path}: a recording of version {version}, where {VERSION} is known")
            return cls(
                [
                    FilterConfig(
                        each["file"],
                        configuration=_bytes(each["configuration"]),
                        vm_configuration=_bytes(each["vm_configuration"]),
                        environment=each["environment"],
                        failure_policy=each["failure_policy"],
                        **{name: each[name] for name in FIELDS},
                    )
                    for each in given["filters"]
                ],
                [each["sha256"] for each in given["filters"]],
                _message_of(given["request"]),
                _message_of(given["response"]),
                {
                    cluster: [[_reply_of(reply) for reply in answer] for answer in answers]
                    for cluster, answers in given["callouts"].items()
                },
                {name: _value(value) for name, value in given["properties"].items()},
                *(given[name] for name in ("profile", "ticks", "time_ns", "seed", "engine", "transcript")),
            )
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise ConfigError(f"{path} is no recording: {error!r}") from None

    # -- Again ---------------------------------------------------------------------------------------------------

    def run(
        self, modules: Sequence[str | Path] = (), *, engine: str | None = None, limits: Limits | None = None
    ) -> Replay:
        """Send the request through the filters once more, or through `modules` in their places.

        Raises: OSError, ModuleError, UnknownEngine, EngineUnavailable.
        """
        filters = (
            [replace(filter, code=code) for filter, code in zip(self.filters, modules, strict=True)]
            if modules
            else self.filters
        )
        recorder = Recorder()
        services = Services(log=recorder, clusters=self.callouts.keys())
        host = Host(
            engine,
            profile=self.profile,
            services=settle(services, self.time_ns, self.seed),
            listener=recorder,
            limits=limits,
        )
        failure: Failure | None = None
        result = Exchange()
        try:
            with host:
                plugins = [host.load_plugin(filter) for filter in filters]
                result = exchange(
                    host,
                    plugins,
                    self.request,
                    self.response,
                    recorder=recorder,
                    properties=self.properties,
                    callouts={cluster: _in_turn(answers) for cluster, answers in self.callouts.items()},
                    ticks=self.ticks,
                )
                failure = result.failure
                lines = transcript(recorder)
        except PluginError as error:
            failure, lines = error.failure, transcript(recorder)
        return Replay(host.engine.name, result, failure, lines, self.transcript)


@dataclass
class Replay:
    """What came of a recording when it was run again."""

    engine: str
    result: Exchange
    failure: Failure | None
    transcript: list[str]
    recorded: list[str]

    @property
    def first_difference(self) -> tuple[int, str, str] | None:
        """Line (from 1), what was recorded there, and what came; ``None``, if all is the same."""
        for line, (was, came) in enumerate(_padded(self.recorded, self.transcript), 1):
            if was != came:
                return line, was, came
        return None


def settle(services: Services, time_ns: int, seed: int) -> Services:
    """These services, with a clock that stands still and random numbers that are the same each time."""
    return replace(services, clock=ManualClock(time_ns), random=Random(seed).randbytes)  # noqa: S311 - not for secrets


def transcript(recorder: Recorder) -> list[str]:
    """What filters were called with, did and logged, a line each."""
    lines = []
    for entry in recorder.timeline:
        if isinstance(entry, Invocation):
            lines.append(repr(entry))
            lines += [f"  {describe(event)}" for event in entry.events if isinstance(event, Call)]
            lines += [f"  log: {event.message}" for event in entry.events if isinstance(event, GuestLog)]
    return lines


def noted(callouts: Mapping[str, Answer], into: dict[str, list[list[Reply]]]) -> dict[str, Answer]:
    """The same answers, and a note of each that is given."""

    def note(cluster: str, answer: Answer) -> Answer:
        into[cluster] = []

        def reply(callout: Callout) -> Sequence[Reply]:
            made = answer(callout) if callable(answer) else answer
            into[cluster].append(list(made) if isinstance(made, Sequence) else [made])
            return into[cluster][-1]

        return reply

    return {cluster: note(cluster, answer) for cluster, answer in callouts.items()}


def _in_turn(answers: list[list[Reply]]) -> Answer:
    left = list(answers)

    def reply(_: Callout) -> Sequence[Reply]:
        return left.pop(0) if len(left) > 1 else left[0] if left else []

    return reply


def digest_of(path: str | Path) -> str:
    """SHA-256 of a file. Raises: OSError."""
    return sha256(Path(path).read_bytes()).hexdigest()


# -- JSON --------------------------------------------------------------------------------------------------------------


def _text(value: Any) -> Any:
    """Bytes as text, or as base64 if they are none."""
    if not isinstance(value, bytes):
        return value
    try:
        return value.decode()
    except UnicodeDecodeError:
        return {"base64": b64encode(value).decode()}


def _bytes(value: Any) -> bytes:
    return b64decode(value["base64"]) if isinstance(value, dict) else value.encode()


def _value(value: Any) -> Any:
    return b64decode(value["base64"]) if isinstance(value, dict) and value.keys() == {"base64"} else value


def _pairs(pairs: Iterable[tuple[bytes, bytes]]) -> list[list[Any]]:
    return [[_text(name), _text(value)] for name, value in pairs]


def _pairs_of(pairs: Iterable[Sequence[Any]]) -> HeaderList:
    return [(_bytes(name), _bytes(value)) for name, value in pairs]


def _message(message: Message) -> dict[str, Any]:
    return {
        "headers": _pairs(message.headers),
        "chunks": [_text(chunk) for chunk in message.chunks],
        "trailers": _pairs(message.trailers),
    }


def _message_of(given: Mapping[str, Any]) -> Message:
    chunks = [_bytes(chunk) for chunk in given["chunks"]]
    return Message(_pairs_of(given["headers"]), chunks, _pairs_of(given["trailers"]))


def _reply(reply: Reply) -> dict[str, Any]:
    """A reply by the name of its class and its fields."""
    given = {each.name: getattr(reply, each.name) for each in fields(reply)}
    return {
        "reply": type(reply).__name__,
        **{name: _pairs(value) if isinstance(value, list) else _text(value) for name, value in given.items()},
    }


def _reply_of(given: Mapping[str, Any]) -> Reply:
    kind = REPLIES[given["reply"]]
    read: dict[Any, Callable[[Any], Any]] = {"HeaderList": _pairs_of, "bytes": _bytes}
    made: Reply = kind(**{each.name: read.get(each.type, _value)(given[each.name]) for each in fields(kind)})
    return made


def _padded(some: list[str], others: list[str]) -> Iterable[tuple[str, str]]:
    """Lines side by side; the shorter one ends in lines that say so."""
    most = max(len(some), len(others))
    end = "(the end)"
    return zip([*some, *[end] * (most - len(some))], [*others, *[end] * (most - len(others))], strict=True)
