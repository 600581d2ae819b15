"""Suites in our own form, YAML, which `model` describes. Each test loads its filters again."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Union

from pydantic import ValidationError

from proxywasm_host.errors import ConfigError
from proxywasm_host.runtime.filter_config import plugin_names
from proxywasm_host.serve.source import error_lines, read_file
from proxywasm_host.suites import model
from proxywasm_host.suites.case import Case, Environment
from proxywasm_host.suites.chain import Chain, chain_of
from proxywasm_host.testing import (
    FAIL,
    NEVER,
    Callout,
    FilterUnderTest,
    GrpcStatus,
    Harness,
    Outcome,
    Request,
    Response,
    later,
)

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
        raise ConfigError("\n".join(error_lines(error, file, lines, KNOWN_BY, "the suite"))) from None
    named = [suite.filter] if isinstance(suite.filter, str) else suite.filter
    given = [[one] for one in filters] or [[file.parent / one for one in named]]
    chains = [(files[0], chain_of(files)) for files in given]
    if configuration is not None:
        suite = suite.model_copy(update={"configuration": configuration})
    return [
        Case(test.name, file, lines.get(("tests", at), 1), first, partial(_run, suite, test, chain))
        for first, chain in chains
        for at, test in enumerate(suite.tests)
    ]


def _run(suite: model.Suite, test: model.Test, chain: Chain, where: Environment) -> list[str]:
    """Run one test; return the unmet expectations. Raises: ModuleError, PluginError, OSError, ConfigError."""
    configuration = suite.configuration if test.configuration is None else test.configuration
    steps: Sequence[model.Step] = test.steps or [test]
    profile = test.profile or suite.profile or chain.profile or "envoy"
    with Harness(where.engine, profile=profile, cache=where.cache) as harness:
        time = suite.time if test.time is None else test.time
        if time is not None:
            harness.clock.set_time(round(time * 1e6) * 1000)
        harness.count_functions = where.coverage is not None
        said = {} if configuration is None else {"configuration": configuration}
        configs = [replace(config, **said) for config in chain.filters]
        named = zip(configs, plugin_names(configs), strict=True)
        filters = harness([replace(config, name=name) for config, name in named])
        wrong = [
            f"step {number}: {sentence}" if test.steps else sentence
            for number, step in enumerate(steps, 1)
            for sentence in _step(filters, step)
        ]
        if where.coverage is not None:
            where.coverage.add(filters.plugins, harness.recorder, harness.function_counters)
        return wrong


def _step(filters: FilterUnderTest, step: model.Step) -> list[str]:
    """Send one request; return the unmet expectations."""
    upstream = step.upstream if isinstance(step.upstream, model.Response) else model.Response(status=step.upstream)
    given = step.request
    chunks = _chunks(given)
    for cluster, answers in step.callouts.items():
        filters.http[cluster] = filters.grpc[cluster] = filters.redis[cluster] = _answering(answers)
    filters.upstream = Response(
        upstream.status, _pairs(upstream.headers), chunks=_chunks(upstream), trailers=_pairs(upstream.trailers)
    )
    try:
        outcome = filters.request(
            given.method or ("POST" if chunks else "GET"),
            given.url,
            _pairs(given.headers),
            chunks=chunks,
            trailers=_pairs(given.trailers),
            properties=step.properties,
        )
        filters.clock.advance(step.advance)
    except ValueError as error:
        raise ConfigError(str(error)) from None
    except AssertionError as error:  # from a harness whose filters never end
        return [str(error)]
    return list(_wrong(step.expect, outcome, filters.metrics))


# -- Messages to send --------------------------------------------------------------------------------------------------


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


def _answering(answers: Any) -> Callable[[Callout], Any]:
    """A function that returns a cluster's answers: those of a list in turn, and its last for all further calls."""
    left = list(answers) if isinstance(answers, list) else [answers]

    def answer(callout: Callout) -> Any:
        one: Any = left.pop(0) if len(left) > 1 else left[0] if left else "never"
        if isinstance(one, str):
            return FAIL if one == "fail" else NEVER
        made = model.Answer(status=one) if isinstance(one, int) else one
        return later(made.after, _answer(callout, made)) if made.after else _answer(callout, made)

    return answer


def _answer(callout: Callout, answer: model.Answer) -> Any:
    if callout.kind == "http":
        return Response(answer.status, _pairs(answer.headers), answer.body)
    if callout.kind == "redis" or answer.status in (0, 200):  # 200 is the default, and no status of gRPC
        return answer.body.encode()
    return GrpcStatus(answer.status, answer.body)


# -- Expectations ------------------------------------------------------------------------------------------------------


def _wrong(expect: model.Expectation, result: Outcome, metrics: dict[str, int]) -> Iterator[str]:
    if not expect.failure and result.failure is not None:
        yield f"the filter failed: {result.failure.message}"
    elif expect.failure and result.failure is None:
        yield "the filter must fail, but did not"
    elif not isinstance(expect.failure, bool) and result.failure is not None:
        yield from _compared("the failure", expect.failure, result.failure.message)
    yield from _message("upstream", expect.upstream, result.upstream)
    yield from _message("the client", expect.response, result.response)
    if expect.local is not None and expect.local != (result.local_response is not None):
        whose = ("upstream", "a filter") if expect.local else ("a filter", "upstream")
        yield f"the response is that of {whose[0]}, expected {whose[1]}"
    if expect.details is not None:
        yield from _compared("details", expect.details, result.details)
    held = next(iter(result.paused), None)
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
    if expect.callouts is not None:
        yield from _callouts(expect.callouts, result.callouts)
    yield from _metrics(expect.metrics, metrics)


def _callouts(expected: Sequence[model.ExpectedCallout], made: Sequence[Callout]) -> Iterator[str]:
    told = ", ".join(map(repr, made)) or "none"
    if len(made) != len(expected):
        yield f"{len(made)} callouts were made, expected {len(expected)}; there are {told}"
        return
    for number, (wanted, callout) in enumerate(zip(expected, made, strict=True), 1):
        what = f"callout {number}"
        if wanted.cluster is not None:
            yield from _compared(f"{what}: cluster", wanted.cluster, callout.cluster)
        if callout.kind == "http":
            yield from _message(what, wanted, callout.request)


def _metrics(expected: dict[str, int], have: dict[str, int]) -> Iterator[str]:
    for name, value in expected.items():
        if have.get(name) != value:
            there = f"is {have[name]}" if name in have else f"is not there; there is {', '.join(have) or 'none'}"
            yield f"metric {name} {there}, expected {value}"


def _message(who: str, expected: Any, got: Request | Response | None) -> Iterator[str]:
    if expected is None:
        return
    if expected is False or got is None:
        if expected is not False:
            yield f"{who} gets nothing"
        elif got is not None:
            yield f"{who} gets something, expected nothing"
        return
    for field in ("method", "path", "status"):
        wanted = getattr(expected, field, None)
        if wanted is not None:
            yield from _compared(
                f"{who}: {field}", str(wanted) if field == "status" else wanted, str(getattr(got, field))
            )
    pseudo = {":authority": getattr(got, "authority", None), ":scheme": getattr(got, "scheme", None)}
    for what, headers, fields in (
        ("header", got.headers, expected.headers),
        ("trailer", got.trailers, expected.trailers),
    ):
        for name, value in fields.items():
            there = pseudo[name] if name in pseudo else headers.get(name)
            yield from _field(f"{who}: {what} {name}", value, there)
    if expected.body is not None:
        yield from _compared(f"{who}: the body", expected.body, got.text)


def _field(what: str, expected: Any, value: str | None) -> Iterator[str]:
    if expected is None:
        if value is not None:
            yield f"{what} is {value!r}, expected none"
    elif value is None:
        yield f"{what} is missing, expected {_said(expected)}"
    else:
        yield from _compared(what, expected, value)


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
