"""Converts a recording to a test as a person would write it, with answers, request and outcome.

The test is run before it is written, and expects the outcome of that run. The conversion is refused if the outcome
differs from the recording, or if a test cannot express the recording.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from proxywasm_host import remedy
from proxywasm_host.abi.pairs import HeaderList
from proxywasm_host.errors import ConfigError
from proxywasm_host.recording.answers import REPLAY_INSTEAD, answers_of
from proxywasm_host.recording.file_format import RECORDED, Event, Recording
from proxywasm_host.runtime.failure import PluginError
from proxywasm_host.runtime.filter_config import FilterConfig
from proxywasm_host.testing import (
    FAIL,
    NEVER,
    GrpcStatus,
    Harness,
    Headers,
    Outcome,
    Request,
    Response,
)
from proxywasm_host.testing.callouts import Later
from proxywasm_host.testing.profiles import HOST_PROFILES
from proxywasm_host.testing.scenario import Scenario, headers_source, literal

__all__ = ["as_pytest", "as_suite"]

NOT_IN_TESTS = {
    "configuration": "it is an argument of its own",
    "limits": "a test has those of its harness",
    "failure_policy": "a test sends one request, which no new guest gets",
    "isolation": "it needs the profile wasmx, and a test has one request",
}
"""Recorded options of a filter that a test of it does not repeat, with the reason."""
"""Fields of a `FilterConfig` that are written if they differ from the defaults."""


@dataclass
class RecordedTest:
    """The parts of the test for a recording."""

    filters: list[FilterConfig]
    profile: str
    time_ns: int
    """The time when the filters start, in nanoseconds since 1970."""
    waits: float
    """Seconds until the request comes; the filters tick meanwhile."""
    scenario: Scenario

    def run(self, engine: str | None) -> Outcome | None:
        """Run the test. Returns its outcome, or ``None`` if a filter does not start."""
        with Harness(engine, profile=self.profile) as harness:
            harness.clock.set_time(self.time_ns)
            self.scenario.set_answers(harness)
            try:
                filters = harness(self.filters)
            except PluginError:
                return None
            harness.clock.advance(self.waits)
            return self.scenario.send(filters)


def as_pytest(recording: Recording) -> str:
    """A Python module with a test for pytest. Raises: ConfigError, OSError, ModuleError, EngineUnavailable."""
    test = _test(recording)
    outcome = _checked(recording, test)
    body = [*_arranged(test, outcome), *_asserted(outcome)]
    text = "\n".join(f"    {line}".rstrip() for line in body)
    testing = [name for name in TESTING_NAMES if f"{name}(" in text or f" {name}\n" in text or f"[{name}" in text]
    imports = ["import pytest"] if "pytest." in text or test.profile != "envoy" else []
    imports += [""] if imports else []
    core = [name for name in ("FilterConfig", "PluginError") if name in text]
    imports += [f"from proxywasm_host import {', '.join(core)}"] if core else []
    metadata = [name for name in ("GrpcInitialMetadata", "GrpcTrailingMetadata") if f"{name}(" in text]
    imports += [f"from proxywasm_host.effects import {', '.join(metadata)}"] if metadata else []
    imports += [f"from proxywasm_host.testing import {', '.join(testing)}"] if testing else []
    mark = [] if test.profile == "envoy" else [f"@pytest.mark.proxywasm(profile={test.profile!r})"]
    head = "\n".join([*imports, "", "", *mark, "def test_recorded(proxywasm):"]).lstrip("\n")
    return f"{head}\n{text}\n"


TESTING_NAMES = ("FAIL", "NEVER", "GrpcStatus", "RedisError", "RedisStatus", "Response", "later")


def as_suite(recording: Recording) -> str:
    """A suite with one test for ``proxywasm test``. Raises: ConfigError, OSError, ModuleError, EngineUnavailable."""
    test = _test(recording)
    scenario = test.scenario
    configurations = {_text(filter.configuration, "a configuration") for filter in test.filters}
    if len(configurations) > 1 or any(_options(filter).keys() - {"name"} for filter in test.filters):
        raise ConfigError("a suite has one configuration for all filters, and no other options: use --to pytest")
    if scenario.leaves_after is not None:
        raise ConfigError("the request has no end, which a suite cannot express: use --to pytest")
    if test.waits:
        raise ConfigError("the filters ticked before the request came, which a suite cannot express: use --to pytest")
    if scenario.patience is not None:
        raise ConfigError("the proxy waited for too long, which a suite cannot express: use --to pytest")
    outcome = _checked(recording, test)
    if outcome is None:
        raise ConfigError("a filter was not started, which a suite cannot express: use --to pytest")
    files = [str(filter.code) for filter in test.filters]
    request: dict[str, Any] = {"method": scenario.method, "url": scenario.url, **_yaml_message(scenario)}
    entry: dict[str, Any] = {"name": "recorded", "request": request}
    if isinstance(scenario.upstream, Response):
        entry["upstream"] = {"status": scenario.upstream.status, **_yaml_message(scenario.upstream)}
    elif scenario.upstream is not None:
        raise ConfigError("upstream did not answer, which a suite cannot express: use --to pytest")
    if scenario.answers:
        entry["callouts"] = {
            cluster: [_yaml_answer(answer) for answer in answers] for (_, cluster), answers in scenario.answers.items()
        }
    if scenario.properties:
        entry["properties"] = {name: _text(value, name) for name, value in scenario.properties.items()}
    entry["expect"] = _yaml_expected(outcome)
    suite: dict[str, Any] = {"filter": files[0] if len(files) == 1 else files}
    (configuration,) = configurations
    suite |= {"configuration": configuration} if configuration else {}
    suite |= {"profile": test.profile} if test.profile != "envoy" else {}
    return _yaml({**suite, "time": round(test.time_ns / 1e9, 6), "tests": [entry]})


# -- From a recording to a test ----------------------------------------------------------------------------------------


def _test(recording: Recording) -> RecordedTest:
    """The test for a recording. Raises: ConfigError."""
    if recording.cut:
        raise ConfigError("the recording is cut: its end is missing")
    if recording.profile not in HOST_PROFILES:
        raise ConfigError(f"tests have no profile {recording.profile!r}")
    for event in (*recording.start, *recording.events):
        if event.event not in EXPRESSIBLE:
            raise ConfigError(f"the recording has an event {event.event!r}, {REPLAY_INSTEAD}")
    events = defaultdict(list)
    for event in recording.events:
        events[event.event].append(event)
    request = _request(events)
    chunks = [event.given["data"] for event in events["request_body"] if event.given["data"]]
    ends = [event.given.get("end_stream") for name in ("request_headers", "request_body") for event in events[name]]
    whole = any(ends) or bool(events["request_trailers"])
    if not whole and "status" in recording.outcome and not events["time_out"]:
        # The request was answered before its end, so the rest of it is not read.
        chunks, whole = [*chunks, UNREAD], True
    started = [event.time_ns for event in recording.start if event.event == "start"]
    begins = (started[0] if started else recording.events[0].time_ns) // 1000 * 1000
    ticks = [event.time_ns for event in recording.start if event.event == "tick"]
    scenario = Scenario(
        request.method,
        _url(request),
        request.headers.pairs,
        chunks,
        _pairs(events["request_trailers"][0].given["trailers"]) if events["request_trailers"] else [],
        recording.properties,
        _upstream(events),
        answers_of(recording),
        None if whole else len(chunks),
        _patience(events),
    )
    waits = (ticks[-1] - begins) / 1e9 if ticks else 0.0
    return RecordedTest(recording.filters, recording.profile, begins, waits, scenario)


UNREAD = b"the rest"
EXPRESSIBLE = frozenset(
    (
        *("start", "tick", "reply", "close", "local_response", "reset", "time_out"),
        *(f"{which}_{part}" for which in ("request", "response") for part in ("headers", "body", "trailers")),
    )
)
"""Events that a test can express."""


def _request(events: dict[str, list[Event]]) -> Request:
    headers = events["request_headers"]
    return Request.of(headers[0].given["headers"]) if headers else Request()


def _url(request: Request) -> str:
    return f"{request.scheme or 'http'}://{request.authority or 'example.com'}{request.path}"


def _pairs(pairs: HeaderList) -> list[tuple[str, str]]:
    return Request.of(pairs).headers.pairs


def _upstream(events: dict[str, list[Event]]) -> Any:
    if not events["response_headers"]:
        gone = any(event.given["details"].startswith("upstream") for event in events["local_response"])
        return FAIL if gone else None
    head = Response.of(events["response_headers"][0].given["headers"])
    trailers = _pairs(events["response_trailers"][0].given["trailers"]) if events["response_trailers"] else []
    parts = [*events["response_headers"], *events["response_body"]]
    if events["time_out"] and not trailers and not any(part.given["end_stream"] for part in parts):
        raise ConfigError(f"the proxy waited too long for the rest of the response, {REPLAY_INSTEAD}")
    chunks = [event.given["data"] for event in events["response_body"] if event.given["data"]]
    return Response(head.status, head.headers.pairs, chunks=chunks, trailers=trailers)


def _patience(events: dict[str, list[Event]]) -> float | None:
    if not events["time_out"]:
        return None
    return max(events["time_out"][0].time_ns - events["request_headers"][0].time_ns, 0) / 1e9


def _checked(recording: Recording, test: RecordedTest) -> Outcome | None:
    """Run the test. Returns its outcome. Raises: ConfigError, if the outcome differs from the recording."""
    outcome = test.run(recording.engine or None)
    came = {"status": outcome.status, "failed": outcome.failure is not None} if outcome else {"started": False}
    was = (
        {"status": recording.outcome.get("status"), "failed": "failure" in recording.outcome}
        if recording.events
        else {"started": False}
    )
    if came != was:
        raise ConfigError(
            f"as a test it would end with {_described(came)}, but the recording ended with {_described(was)}: "
            "it depends on more than the request, such as what was in the guest's memory"
        )
    return outcome


def _described(end: dict[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in end.items())


# -- pytest ------------------------------------------------------------------------------------------------------------


def _arranged(test: RecordedTest, outcome: Outcome | None) -> Iterator[str]:
    yield f"proxywasm.clock.set_time({test.time_ns})"
    yield from test.scenario.answers_source("proxywasm")
    loaded = f"proxywasm({_filters(test.filters)})"
    if outcome is None:
        yield from ("with pytest.raises(PluginError):", f"    {loaded}")
        return
    yield f"f = {loaded}"
    if test.waits:
        yield f"f.clock.advance({test.waits!r})"
    yield from test.scenario.source()


def _asserted(outcome: Outcome | None) -> Iterator[str]:
    if outcome is None:
        return
    yield ""
    yield f"assert outcome.status {'is' if outcome.status is None else '=='} {outcome.status!r}"
    upstream, response = outcome.upstream, outcome.response
    if upstream is None:
        yield "assert outcome.upstream is None"
    else:
        yield f"assert (outcome.upstream.method, outcome.upstream.path) == {(upstream.method, upstream.path)!r}"
        yield f"assert outcome.upstream.headers == {headers_source(upstream.headers.pairs)}"
        yield f"assert outcome.upstream.body == {literal(upstream.body)}"
    if response is not None:
        yield f"assert outcome.response.headers == {headers_source(response.headers.pairs)}"
        yield f"assert outcome.response.body == {literal(response.body)}"
    if outcome.callouts:
        yield f"assert [call.cluster for call in outcome.callouts] == {[call.cluster for call in outcome.callouts]!r}"
    if outcome.failure is None:
        yield "assert outcome.failure is None"
    else:
        yield f"assert outcome.failure.callback == {outcome.failure.callback!r}"


def _filters(filters: Sequence[FilterConfig]) -> str:
    if len(filters) > 1:
        return f"[{', '.join(_config(filter) for filter in filters)}]"
    (filter,) = filters
    arguments = [repr(str(filter.code)), *([_configuration(filter)] if filter.configuration else [])]
    return ", ".join([*arguments, *(f"{name}={value!r}" for name, value in _options(filter).items())])


def _config(filter: FilterConfig) -> str:
    configuration = [f"configuration={_configuration(filter)}"] if filter.configuration else []
    options = [f"{name}={value!r}" for name, value in _options(filter).items()]
    return f"FilterConfig({', '.join([repr(str(filter.code)), *configuration, *options])})"


def _configuration(filter: FilterConfig) -> str:
    given = filter.configuration
    try:
        return repr(given.decode() if isinstance(given, bytes) else given)
    except UnicodeDecodeError:
        return repr(given)


def _options(filter: FilterConfig) -> dict[str, Any]:
    """The options that differ from the defaults."""
    usual = FilterConfig(filter.code)
    given = {name: getattr(filter, name) for name in RECORDED if name not in NOT_IN_TESTS}
    if filter.capabilities is not None:
        given["capabilities"] = sorted(filter.capabilities)
    return {
        name: value
        for name, value in given.items()
        if value and value != getattr(usual, name) and not (name == "name" and value == usual.plugin_name)
    }


# -- A suite -----------------------------------------------------------------------------------------------------------


def _text(value: Any, what: str) -> Any:
    if not isinstance(value, bytes):
        return value
    try:
        return value.decode()
    except UnicodeDecodeError:
        raise ConfigError(f"{what} is not text, which a suite cannot express: use --to pytest") from None


def _yaml_headers(headers: Headers) -> dict[str, Any]:
    return {name: values[0] if len(values := headers.get_all(name)) == 1 else values for name in headers}


def _yaml_message(message: Response | Scenario) -> dict[str, Any]:
    parts: dict[str, Any] = {
        "headers": _yaml_headers(Headers(message.headers)),
        "chunks": [_text(chunk, "a body") for chunk in message.chunks],
        "trailers": _yaml_headers(Headers(message.trailers)),
    }
    return {name: part for name, part in parts.items() if part}


def _yaml_answer(answer: Any) -> Any:
    """An answer in the form of a suite. Raises: ConfigError."""
    after = {}
    if isinstance(answer, Later):
        after, answer = {"after": answer.seconds}, answer.answer
    if answer is FAIL or answer is NEVER:
        return repr(answer).lower()
    if isinstance(answer, Response):
        body = {"body": _text(answer.body, "a body")} if answer.body else {}
        headers = {"headers": _yaml_headers(answer.headers)} if len(answer.headers) else {}
        return {"status": answer.status, **headers, **body, **after}
    if isinstance(answer, GrpcStatus):
        return {"status": answer.status, "body": answer.message, **after}
    if isinstance(answer, bytes):
        return {"status": 0, "body": _text(answer, "a message"), **after}
    raise ConfigError("a suite cannot express answers of Redis, or on a gRPC stream: use --to pytest")


def _yaml_expected(outcome: Outcome) -> dict[str, Any]:
    expected: dict[str, Any] = {}
    upstream, response = outcome.upstream, outcome.response
    expected["upstream"] = upstream is not None and {
        "method": upstream.method,
        "path": upstream.path,
        **_yaml_expected_message(upstream),
    }
    expected["response"] = response is not None and {"status": response.status, **_yaml_expected_message(response)}
    if outcome.callouts:
        expected["callouts"] = [{"cluster": call.cluster} for call in outcome.callouts]
    if outcome.failure is not None:
        expected["failure"] = True
    if outcome.paused:
        expected["paused"] = next(iter(outcome.paused))
    return expected


def _yaml_expected_message(message: Request | Response) -> dict[str, Any]:
    headers = {name: message.headers[name] for name in message.headers}
    return {
        **({"headers": headers} if headers else {}),
        **({"body": _text(message.body, "a body")} if message.body else {}),
    }


def _yaml(suite: dict[str, Any]) -> str:
    try:
        import yaml  # noqa: PLC0415 - from an extra
    except ModuleNotFoundError as error:
        raise remedy.missing("suites", error) from None
    return str(yaml.safe_dump(suite, sort_keys=False, allow_unicode=True, width=120))
