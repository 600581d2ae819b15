"""Runs Google's ``tests.textpb`` and ``tests.yaml`` (Service Extensions) unchanged, and as Google's tester does.

This module differs from a proxy where that tester does:

* A filter is called only for the phases that a test has: a test with only a response's body begins there, and a
  filter's own response passes no filter. Headers need no ``:method`` or ``:path``, and never end the stream.
* Values of headers with the same name are joined by ``", "``, and names are compared without regard to case. A regular
  expression must match the whole text. An ``invert``ed matcher must match nothing.
* Time stands still: at ``time_secs``, or in 1970 by default.

Chunks, buffers and the rights of filters are those of this host. Source: ``plugins/test/dynamic_test.cc`` and
``framework.cc`` of GoogleCloudPlatform/service-extensions.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from google.protobuf import text_format

from proxywasm_host.abi.pairs import HeaderList
from proxywasm_host.abi.types import LogLevel
from proxywasm_host.errors import ConfigError
from proxywasm_host.runtime import effects
from proxywasm_host.runtime.filter_config import FilterConfig
from proxywasm_host.runtime.host import Host
from proxywasm_host.runtime.http import HttpStream
from proxywasm_host.services import GuestLog, Services
from proxywasm_host.suites.case import Case, Environment
from proxywasm_host.suites.chain import chain_of
from proxywasm_host.suites.service_extensions_schema import TestSuite
from proxywasm_host.suites.service_extensions_yaml import YAML, NotASuite, fill
from proxywasm_host.testing.function_counters import FunctionCounters, counted
from proxywasm_host.testing.timeline import Recorder

__all__ = ["read"]

FIRST_LINE = re.compile(r"(?P<method>[^\s/]+) (?P<target>\S+) HTTP/1\.\d|HTTP/1\.\d (?P<status>\d{3})( .*)?")
ABSOLUTE = re.compile(r"(?P<scheme>[a-z][a-z0-9+.-]*)://(?P<authority>[^/?#]+)(?P<path>[^#]*)", re.IGNORECASE)
LIFE = ("on_context_create", "on_vm_start", "on_configure")
END = ("on_done", "on_delete")
POSIX = {
    "alnum": "0-9A-Za-z",
    "alpha": "A-Za-z",
    "ascii": r"\x00-\x7f",
    "blank": r"\t ",
    "cntrl": r"\x00-\x1f\x7f",
    "digit": "0-9",
    "graph": "!-~",
    "lower": "a-z",
    "print": " -~",
    "punct": r"!-/:-@\[-`{-~",
    "space": r"\t\n\v\f\r ",
    "upper": "A-Z",
    "word": "0-9A-Za-z_",
    "xdigit": "0-9A-Fa-f",
}
"""Character classes of RE2, by name, in Python's syntax."""
NANOSECONDS = 1_000_000_000


def read(file: Path, filters: Sequence[Path] = (), configuration: bytes | None = None) -> list[Case]:
    """The cases of a suite. Arguments and errors: see `proxywasm_host.suites.read`."""
    try:
        text = file.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise ConfigError(f"cannot read the suite {file}: {reason}") from None
    try:
        suite = fill(text, TestSuite()) if file.suffix in YAML else text_format.Parse(text, TestSuite())
    except text_format.ParseError as error:
        line = error.GetLine()
        said = str(error).partition(" : ")[2] or str(error)
        raise ConfigError(f"{file}:{line}: {said}") from None
    except NotASuite as error:
        raise ConfigError(f"{file}:{error.line}: {error}") from None
    named = [file.parent / suite.env.wasm_path] if suite.env.wasm_path else []
    if not filters and not named:
        raise ConfigError(f"{file}: env.wasm_path is missing, and no filter is given: add --filter FILTER.wasm")
    if configuration is None and suite.env.config_path:
        configuration = _content(file.parent, suite.env.config_path, f"{file}: env.config_path")
    return [
        Case(test.name, file, _line(text, test.name), filter, partial(_run, file, suite.env, test, config))
        for filter in filters or named
        for config in [_config(filter, configuration)]
        for test in suite.test
    ]


def _config(filter: Path, configuration: bytes | None) -> FilterConfig:
    """The filter of a module, or the only one of a configuration. Raises: ConfigError."""
    chain = chain_of([filter]).filters
    if len(chain) != 1:
        raise ConfigError(f"{filter}: has {len(chain)} filters, but a suite of Google's tests one")
    config = chain[0] if configuration is None else replace(chain[0], configuration=configuration)
    return replace(config, name=config.plugin_name)


def _line(text: str, name: str) -> int:
    """The line of a test's name; 1 if the name is not written plainly."""
    at = next((at for each in (f'"{name}"', f"name: {name}\n") if (at := text.find(each)) >= 0), 0)
    return text.count("\n", 0, at) + 1


def _content(folder: Path, name: str, what: str) -> bytes:
    try:
        return (folder / name).read_bytes()
    except OSError as error:
        raise ConfigError(f"{what}: cannot read {name}: {error.strerror}") from None


@dataclass(frozen=True)
class FrozenClock:
    """A clock that stands still. Both of its times are the same, as the tester's are."""

    now: int

    def time_ns(self) -> int:
        return self.now

    def monotonic_ns(self) -> int:
        return self.now or NANOSECONDS  # Go's runtime takes 0 for a broken clock, and aborts


class Lines:
    """A log sink whose lines are taken phase by phase."""

    def __init__(self, level: int) -> None:
        self.level = level
        self.lines: list[str] = []

    def log(self, line: GuestLog) -> None:
        if line.level >= self.level:
            self.lines.append(line.message)

    def take(self) -> list[str]:
        lines, self.lines = self.lines, []
        return lines


@dataclass
class Seen:
    """The results of one phase."""

    headers: dict[str, str]
    """Joined values, by name in lower case."""
    body: bytes
    logs: list[str]
    answer: Any = None
    """The `LocalResponse`, if the filter sent one."""
    paused: bool = False


def _run(file: Path, env: Any, test: Any, config: FilterConfig, where: Environment) -> list[str]:
    """Run one test; return the unmet expectations. Raises: ModuleError, PluginError, OSError, ConfigError."""
    lines = Lines(env.log_level - 1 if env.log_level else LogLevel.INFO)
    services = Services(log=lines, clock=FrozenClock(env.time_secs * NANOSECONDS))
    recorder = None if where.coverage is None else Recorder()
    with Host(where.engine, services=services, cache=where.cache, listener=recorder) as host:
        plugin = host.load_plugin(config if where.coverage is None else counted(config))
        counters = {} if where.coverage is None else {plugin: FunctionCounters(plugin)}
        wrong = list(_Test(file, test, host, plugin, lines).run())
        if where.coverage is not None and recorder is not None:
            where.coverage.add([plugin], recorder, counters)
        return wrong


class _Test:
    """One test on its way through a filter."""

    def __init__(self, file: Path, test: Any, host: Host, plugin: Any, lines: Lines) -> None:
        self.file, self.test, self.host, self.plugin, self.lines = file, test, host, plugin, lines
        properties = {one.path: one.value for one in test.properties}
        self.stream: HttpStream = host.http_stream([plugin], properties=properties, router=False, header_limits=None)

    def run(self) -> Iterator[str]:
        test, stream = self.test, self.stream
        yield from self._logged("plugin_init", test.plugin_init, self.lines.take())
        self.plugin._vm.contexts[stream.filters[0].context_id].create()
        yield from self._logged("stream_init", test.stream_init, self.lines.take())
        yield from self._head("request", test, stream.request_headers, effects.RequestHeaders)
        yield from self._bodies("request_body", test.request_body, stream.request_body, effects.RequestBody)
        if test.HasField("response_headers") or test.response_body:
            yield from self._head("response", test, stream.response_headers, effects.ResponseHeaders)
        yield from self._bodies("response_body", test.response_body, stream.response_body, effects.ResponseBody)
        with self._only(*END):
            stream.close()
        yield from self._logged("stream_destroy", test.stream_destroy, self.lines.take())
        if self.plugin.failure is not None:
            yield f"the filter failed: {self.plugin.failure.message}"

    # -- Messages to send ----------------------------------------------------------------------------------------

    @contextmanager
    def _only(self, *names: str) -> Iterator[None]:
        """Call only the guest's callbacks with these names, and those that make contexts."""
        vm = self.plugin._vm
        every = vm.callbacks
        vm.callbacks = {name: call for name, call in every.items() if name in (*LIFE, *names)}
        try:
            yield
        finally:
            vm.callbacks = every

    def _head(self, which: str, test: Any, feed: Any, out: Any) -> Iterator[str]:
        """Feed the headers of a message. If the test has none, the filter is not called for them."""
        phase = f"{which}_headers"
        there, invocation = test.HasField(phase), getattr(test, phase)
        before = self.stream.local
        with self._only(*[f"on_{phase}"] * there):
            done = feed(self._headers(invocation.input, which))
        if there:
            local = self.stream.local if before is None else None
            sent = next((effect.headers for effect in done if isinstance(effect, out)), None)
            headers = local.headers if local is not None else sent or []
            paused = sent is None and before is None
            seen = Seen(mapped(headers), b"" if local is None else local.body, self.lines.take(), local, paused)
            yield from self._checked(phase, invocation.result, seen)

    def _headers(self, given: Any, which: str) -> HeaderList:
        """Headers as the filter sees them. Raises: ConfigError."""
        content = (
            _content(self.file.parent, given.file, f"{self.file}: {self.test.name}") if given.file else given.content
        )
        pairs = (
            [(one.key.encode(), one.value) for one in given.header]
            if not content
            else parsed(content, which, f"{self.file}: {self.test.name}")
        )
        together: dict[bytes, bytes] = {}
        for name, value in pairs:
            key = name.lower()
            together[key] = together[key] + b", " + value if together.get(key) else value
        return sorted(together.items())

    def _bodies(self, phase: str, invocations: Any, feed: Any, out: Any) -> Iterator[str]:
        test = self.test
        plan = test.WhichOneof("body_chunking_plan")
        if plan and len(invocations) > 1:
            yield f"{phase}: {plan} is for one {phase}, and there are {len(invocations)}"
            return
        for number, invocation in enumerate(invocations, 1):
            given = invocation.input
            whole = _content(self.file.parent, given.file, f"{self.file}: {test.name}") if given.file else given.content
            chunks = chunked(whole, plan, getattr(test, plan)) if plan else [whole]
            done: list[Any] = []
            before = self.stream.local
            with self._only(f"on_{phase}"):
                for at, chunk in enumerate(chunks, 1):
                    if self.stream.local is None:
                        done += feed(chunk, at == len(chunks) and number == len(invocations))
            held = getattr(self.stream.filters[0], phase.partition("_")[0]).body if self.stream.filters else b""
            body = b"".join(effect.data for effect in done if isinstance(effect, out)) + held
            local = self.stream.local if before is None and invocation.result.HasField("immediate") else None
            seen = Seen({}, body if local is None else local.body, self.lines.take(), local)
            yield from self._checked(phase, invocation.result, seen)

    # -- Expectations --------------------------------------------------------------------------------------------

    def _logged(self, phase: str, expected: Any, lines: list[str]) -> Iterator[str]:
        for matcher in expected.log:
            yield from self._match(phase, "a log line", matcher, [line.encode() for line in lines])

    def _checked(self, phase: str, expected: Any, seen: Seen) -> Iterator[str]:
        for header in expected.has_header:
            value = seen.headers.get(header.key.lower())
            wanted = header.value.decode("utf-8", "surrogateescape")
            if value is None:
                yield f"{phase}: there is no header {header.key}; expected {wanted!r}"
            elif value != wanted:
                yield f"{phase}: header {header.key} is {value!r}, expected {wanted!r}"
        for header in expected.no_header:
            value = seen.headers.get(header.key.lower())
            if value is not None:
                yield f"{phase}: header {header.key} is {value!r}, expected none"
        serialized = [f"{name}: {value}".encode("utf-8", "surrogateescape") for name, value in seen.headers.items()]
        for matcher in expected.headers:
            yield from self._match(phase, "a header", matcher, serialized)
        for matcher in expected.body:
            yield from self._match(phase, "the body", matcher, [seen.body])
        yield from self._answered(phase, expected, seen)
        yield from self._logged(phase, expected, seen.logs)

    @staticmethod
    def _answered(phase: str, expected: Any, seen: Seen) -> Iterator[str]:
        immediate, answer = expected.immediate, seen.answer
        if not expected.HasField("immediate"):
            if answer is not None:
                yield f"{phase}: the filter answers {answer.status}, which is not expected"
            elif seen.paused:
                yield f"{phase}: the filter holds the headers, which is not expected"
            return
        if answer is None:
            yield f"{phase}: the filter does not answer, but an immediate response is expected"
            return
        for field, value in (
            ("http_status", answer.status),
            ("grpc_status", answer.grpc_status),
            ("details", answer.details),
        ):
            wanted = getattr(immediate, field)
            if immediate.HasField(field) and value != wanted:
                yield f"{phase}: {field} is {value!r}, expected {wanted!r}"

    def _match(self, phase: str, what: str, matcher: Any, texts: list[bytes]) -> Iterator[str]:
        kind = matcher.WhichOneof("matcher")
        if kind is None:
            yield f"{phase}: the matcher for {what} is missing: exact, regex or file"
            return
        wanted: bytes = matcher.exact
        if kind == "file":
            wanted = _content(self.file.parent, matcher.file, f"{self.file}: {self.test.name}")
        if kind == "regex":
            try:
                pattern = re2(matcher.regex)
            except re.error as error:
                yield f"{phase}: {matcher.regex!r} is not a regular expression: {error}"
                return
            found = any(map(pattern.fullmatch, texts))
        else:
            found = wanted in texts
        if found == matcher.invert:
            shown = matcher.regex if kind == "regex" else wanted.decode("utf-8", "replace")
            have = ", ".join(repr(text.decode("utf-8", "replace")) for text in texts) or "nothing"
            verb = "must not be" if matcher.invert else "must be"
            yield f"{phase}: {what} {verb} {kind} {shown!r}; there is {have}"


def re2(pattern: str) -> re.Pattern[bytes]:
    """A pattern of RE2 for Python, which has no character classes by name. Raises: re.error."""
    known = re.sub(r"\[:([a-z]+):\]", lambda found: POSIX.get(found[1], found[0]), pattern).replace(r"\z", r"\Z")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # "[[" means something else in a future Python
        return re.compile(known.encode())


def mapped(headers: HeaderList) -> dict[str, str]:
    """Headers by name, with the values of a name joined."""
    together: dict[str, str] = {}
    for name, value in headers:
        key, text = name.decode("utf-8", "surrogateescape").lower(), value.decode("utf-8", "surrogateescape")
        together[key] = f"{together[key]}, {text}" if together.get(key) else text
    return together


def chunked(body: bytes, plan: str, number: int) -> list[bytes]:
    """A body in `number` equal parts, the last with the rest (``num_chunks``), or in parts of `number` bytes."""
    if plan == "num_chunks":
        size = max(len(body) // max(number, 1), 1)
        parts = [body[at * size : (at + 1) * size] for at in range(max(number, 1) - 1)]
        return [*parts, body[len(parts) * size :]]
    size = max(number, 1)
    return [body[at : at + size] for at in range(0, len(body), size)] or [b""]


def parsed(content: bytes, which: str, where: str) -> HeaderList:
    """Convert headers from HTTP/1.1 to the form that a filter sees. Raises: ConfigError."""
    first, *lines = re.split(r"\r?\n", content.decode("utf-8", "surrogateescape").strip("\r\n"))
    found = FIRST_LINE.fullmatch(first)
    if not found or bool(found["status"]) != (which == "response"):
        raise ConfigError(f"{where}: {first!r} is not a first line of a {which} in HTTP/1.1")
    pairs = [(name.strip(), value.strip()) for name, _, value in (line.partition(":") for line in lines if line)]
    if found["status"]:
        pseudo = [(":status", found["status"])]
    elif whole := ABSOLUTE.fullmatch(found["target"]):
        pairs = [pair for pair in pairs if pair[0].lower() != "host"]
        pseudo = [
            (":method", found["method"]),
            (":scheme", whole["scheme"]),
            (":authority", whole["authority"]),
            (":path", whole["path"] if whole["path"].startswith("/") else f"/{whole['path']}"),
        ]
    elif found["target"].startswith("/"):
        hosts = [value for name, value in pairs if name.lower() == "host"]
        pairs = [pair for pair in pairs if pair[0].lower() != "host"]
        pseudo = [
            (":method", found["method"]),
            (":path", found["target"]),
            *((":authority", host) for host in hosts[:1]),
        ]
    else:
        raise ConfigError(
            f"{where}: {found['target']!r} is not a target of a request: write it as /PATH or http://HOST/PATH"
        )
    return [
        (name.encode("utf-8", "surrogateescape"), value.encode("utf-8", "surrogateescape"))
        for name, value in [*pseudo, *pairs]
    ]
