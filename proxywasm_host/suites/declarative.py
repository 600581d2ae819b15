"""Suites of our own form, in YAML: read with `model`, each test run through filters of its own."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Union

from pydantic import ValidationError

from proxywasm_host.errors import ConfigError
from proxywasm_host.runtime import effects
from proxywasm_host.runtime.filter_config import FilterConfig, plugin_names
from proxywasm_host.runtime.host import Host
from proxywasm_host.runtime.plugin import Plugin
from proxywasm_host.serve.source import read_file, told
from proxywasm_host.services import GuestLog, InMemoryMetrics, ManualClock, Services
from proxywasm_host.suites import model
from proxywasm_host.suites.case import Case, Environment
from proxywasm_host.testing import Exchange, Message, exchange

__all__ = ["read"]

KNOWN_BY = "proxywasm test --schema"


def read(file: Path, filters: Sequence[Path] = (), configuration: bytes | None = None) -> list[Case]:
    """The cases of a suite. Arguments and errors: see `proxywasm_host.suites.read`."""
    data, lines = read_file(file, "the suite", "a suite is a mapping, with 'filter' and 'tests' in it")
    if filters:
        data.setdefault("filter", str(filters[0]))
    try:
        suite = model.Suite.model_validate(data)
    except ValidationError as error:
        raise ConfigError("\n".join(told(error, file, lines, KNOWN_BY, "the suite"))) from None
    named = [suite.filter] if isinstance(suite.filter, str) else suite.filter
    chains = [[one] for one in filters] or [[file.parent / one for one in named]]
    if configuration is not None:
        suite = suite.model_copy(update={"configuration": configuration})
    return [
        Case(test.name, file, lines.get(("tests", at), 1), chain[0], partial(_run, suite, test, chain))
        for chain in chains
        for at, test in enumerate(suite.tests)
    ]


class _Silent:
    """A log sink that wants all and keeps nothing: an exchange records."""

    level = 0

    def log(self, line: GuestLog) -> None:
        """Forget a line."""


def _run(suite: model.Suite, test: model.Test, chain: list[Path], where: Environment) -> list[str]:
    """Run one test; what is wrong. Raises: ModuleError, PluginError, OSError, ConfigError."""
    configuration = suite.configuration if test.configuration is None else test.configuration
    profile = test.profile or suite.profile or "envoy"
    services = Services(clock=ManualClock(), log=_Silent(), random=bytes)
    steps: Sequence[model.Step] = test.steps or [test]
    with Host(where.engine, profile=profile, services=services, cache=where.cache) as host:
        configs = [FilterConfig(path, configuration=b"" if configuration is None else configuration) for path in chain]
        plugins = [
            host.load_plugin(replace(config, name=name))
            for config, name in zip(configs, plugin_names(configs), strict=True)
        ]
        return [
            f"step {number}: {sentence}" if test.steps else sentence
            for number, step in enumerate(steps, 1)
            for sentence in _step(host, plugins, step)
        ]


def _step(host: Host, plugins: list[Plugin], step: model.Step) -> list[str]:
    """Send one request; what is wrong."""
    upstream = step.upstream if isinstance(step.upstream, model.Response) else model.Response(status=step.upstream)
    given = step.request
    chunks = _chunks(given)
    try:
        request = Message.request(
            given.method or ("POST" if chunks else "GET"),
            given.url,
            _pairs(given.headers),
            chunks,
            _pairs(given.trailers),
        )
    except ValueError as error:
        raise ConfigError(str(error)) from None
    response = Message.response(upstream.status, _pairs(upstream.headers), _chunks(upstream), _pairs(upstream.trailers))
    result = exchange(
        host,
        plugins,
        request,
        response,
        properties=step.properties,
        callouts={cluster: _answering(answers) for cluster, answers in step.callouts.items()},
        ticks=step.ticks,
    )
    return list(_wrong(step.expect, result, host.services.metrics))


# -- In ----------------------------------------------------------------------------------------------------------------


def _pairs(headers: dict[str, Union[str, list[str]]]) -> list[tuple[str, str]]:
    return [
        (name, value) for name, values in headers.items() for value in ([values] if isinstance(values, str) else values)
    ]


def _chunks(message: model.Message) -> list[bytes]:
    if message.body is None:
        return [chunk.encode() for chunk in message.chunks]
    body = message.body.encode()
    size = message.chunk_size or len(body)
    return [body[at : at + size] for at in range(0, len(body), size)] if body else []


def _answering(answers: Any) -> Callable[[effects.Callout], Sequence[effects.Reply]]:
    """A function that gives a cluster's answers; those of a list in turn, the last for ever."""
    left = list(answers) if isinstance(answers, list) else [answers]

    def answer(callout: effects.Callout) -> Sequence[effects.Reply]:
        one: Any = left.pop(0) if len(left) > 1 else left[0] if left else "fail"
        if one == "fail":
            return [effects.CalloutFailed()]
        return _replies(callout, model.Answer(status=one) if isinstance(one, int) else one)

    return answer


def _replies(callout: effects.Callout, answer: model.Answer) -> Sequence[effects.Reply]:
    status, body = answer.status, answer.body.encode()
    if isinstance(callout, effects.HttpCall):
        headers = [(b":status", b"%d" % status)]
        headers += [(name.lower().encode(), value.encode()) for name, value in _pairs(answer.headers)]
        return [effects.HttpCallReply(headers, body)]
    if status == 200:  # no status of gRPC: it was not said
        status = 0
    if isinstance(callout, effects.GrpcCall):
        return [effects.GrpcClosed(status, answer.body) if status else effects.GrpcCallReply(body)]
    if isinstance(callout, effects.GrpcStream):
        end = effects.GrpcTrailingMetadata([]), effects.GrpcClosed(status)
        return [effects.GrpcInitialMetadata([]), effects.GrpcMessage(body), *end]
    return [effects.RedisCallReply(body)]


# -- Out ---------------------------------------------------------------------------------------------------------------


def _wrong(expect: model.Expectation, result: Exchange, metrics: Any) -> Iterator[str]:
    if not expect.failure and result.failure is not None:
        yield f"the filter failed: {result.failure.message}"
    elif expect.failure and result.failure is None:
        yield "the filter has to fail, and did not"
    elif not isinstance(expect.failure, bool) and result.failure is not None:
        yield from _compared("the failure", expect.failure, result.failure.message)
    yield from _message("upstream", expect.upstream, result.upstream_request)
    yield from _message("the client", expect.response, result.client_response)
    if expect.local is not None and expect.local != (result.local_response is not None):
        whose = ("upstream", "a filter") if expect.local else ("a filter", "upstream")
        yield f"the response is that of {whose[0]}, expected {whose[1]}"
    if expect.details is not None:
        yield from _compared("details", expect.details, result.details)
    held = next(iter(result.held_by), None)
    if held != (expect.paused or None):
        yield f"paused at the end: {held or 'nothing'}, expected {expect.paused or 'nothing'}"
    lines = [line.message for line in result.logs]
    there = ", ".join(map(repr, lines)) or "nothing"
    for expected in expect.logs:
        if not any(_meets(expected, line) for line in lines):
            yield f"no log line {_said(expected)}; there is {there}"
    for expected in expect.no_logs:
        for line in lines:
            if _meets(expected, line):
                yield f"the log line {line!r} must not be there: {_said(expected)}"
    yield from _metrics(expect.metrics, metrics)


def _metrics(expected: dict[str, int], metrics: InMemoryMetrics) -> Iterator[str]:
    have = {name: value for (_, name), value in metrics.values.items()}
    for name, value in expected.items():
        if have.get(name) != value:
            there = f"is {have[name]}" if name in have else f"is not there; there is {', '.join(have) or 'none'}"
            yield f"metric {name} {there}, expected {value}"


def _message(who: str, expected: Any, got: Message | None) -> Iterator[str]:
    if expected is None:
        return
    if expected is False or got is None:
        if expected is not False:
            yield f"{who} gets nothing"
        elif got is not None:
            yield f"{who} gets something, expected nothing"
        return
    pseudo = {"method": ":method", "path": ":path"} if isinstance(expected, model.ExpectedRequest) else {}
    wanted = {name: getattr(expected, field) for field, name in pseudo.items() if getattr(expected, field) is not None}
    if isinstance(expected, model.ExpectedResponse) and expected.status is not None:
        wanted[":status"] = str(expected.status)
    for what, pairs, fields in (
        ("header", got.headers, {**wanted, **expected.headers}),
        ("trailer", got.trailers, expected.trailers),
    ):
        for name, value in fields.items():
            yield from _field(f"{who}: {what} {name}", value, _values(pairs, name))
    if expected.body is not None:
        yield from _compared(f"{who}: the body", expected.body, got.body.decode("utf-8", "replace"))


def _values(pairs: Any, name: str) -> list[str]:
    return [value.decode("utf-8", "replace") for key, value in pairs if key == name.lower().encode()]


def _field(what: str, expected: Any, values: list[str]) -> Iterator[str]:
    if expected is None:
        if values:
            yield f"{what} is {', '.join(values)!r}, expected none"
    elif not values:
        yield f"{what} is missing, expected {_said(expected)}"
    else:
        yield from _compared(what, expected, ", ".join(values))


def _compared(what: str, expected: Any, text: str) -> Iterator[str]:
    if not _meets(expected, text):
        yield f"{what} is {text!r}, expected {_said(expected)}"


def _meets(expected: Union[str, model.Match], text: str) -> bool:
    if isinstance(expected, str):
        return text == expected
    if expected.regex is not None and not re.fullmatch(expected.regex, text, re.DOTALL):
        return False
    if expected.contains is not None and expected.contains not in text:
        return False
    return expected.absent is None or expected.absent not in text


def _said(expected: Union[str, model.Match]) -> str:
    if isinstance(expected, str):
        return repr(expected)
    return " and ".join(f"{name} {value!r}" for name, value in expected.model_dump(exclude_none=True).items())
