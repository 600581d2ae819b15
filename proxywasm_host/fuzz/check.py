"""The checks that every request through a filter must pass, and the report of one that fails."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import zip_longest
from typing import Any

from proxywasm_host.abi.marshal import Call, Refusal
from proxywasm_host.engine.cache import ModuleCache
from proxywasm_host.engine.protocol import Limits
from proxywasm_host.fuzz.example import Example
from proxywasm_host.runtime.filter_config import OPTIONS, FilterConfig, as_bytes
from proxywasm_host.testing import Harness, Outcome

__all__ = ["CHECKS", "Finding", "Subject", "check", "check_memory"]

ROUND = 100
"""Requests between two measurements of a guest's memory."""
ROUNDS = 20
"""Rounds that must all grow memory to be a finding, because a garbage collector may not run for a long time."""
NAMES = ("FAIL", "NEVER", "GrpcStatus", "Harness", "Response", "later")
"""Names that a test may have to import."""

RESPOND = "proxy_send_local_response"
CHECKS = {
    "trap": "the guest does not trap",
    "local": "at most one local response is sent",
    "pause": "the filter resumes a paused message, once all answers are in and time has passed",
    "chunks": "the result does not depend on how a body is cut",
    "engines": "all engines agree",
    "memory": "memory does not grow with each request",
}


@dataclass(frozen=True)
class Subject:
    """A filter and the engines to run it on. All checks but ``engines`` and ``memory`` use the first engine."""

    filter: FilterConfig
    engines: tuple[str, ...] = ()
    clusters: tuple[str, ...] = ()
    profile: str = "envoy"
    limits: Limits | None = None
    cache: ModuleCache | None = field(default=None, compare=False)

    def harness(self, engine: str) -> Harness:
        """A harness without a filter, on an engine."""
        return Harness(engine, profile=self.profile, limits=self.limits, cache=self.cache)

    @property
    def options(self) -> dict[str, Any]:
        """The options of the filter that the command line has too, as far as they differ from the defaults."""
        given = {name: getattr(self.filter, name) for name, option in OPTIONS.items() if option.plain}
        differing = {name: value for name, value in given.items() if value != OPTIONS[name].default}
        return {name: getattr(value, "value", value) for name, value in differing.items()}

    def send(self, example: Example, engine: str) -> Outcome:
        """Send an example through a newly loaded filter. Raises: the errors of loading it."""
        with self.harness(engine) as harness:
            filters = harness(self.filter)
            example.scenario.set_answers(filters)
            return example.scenario.send(filters)


class Finding(AssertionError):
    """A failed check, with the example that breaks it."""

    def __init__(self, check: str, example: Example, said: str, engines: Sequence[str]) -> None:
        super().__init__(f"{CHECKS[check]}: {said}")
        self.check, self.example, self.said, self.engines = check, example, said, tuple(engines)

    def command(self, subject: Subject) -> str:
        """A command line that reproduces the finding; empty if none can."""
        if self.check in ("chunks", "memory"):
            return ""
        filter, options = subject.filter, []
        for flag, text in (("--config", filter.configuration), ("--vm-config", filter.vm_configuration)):
            options += [flag, as_bytes(text).decode("utf-8", "replace")] if text else []
        for name, value in subject.options.items():
            options += [f"--{name.replace('_', '-')}", *([] if value is True else [str(value)])]
        options += ["--profile", subject.profile] if subject.profile != "envoy" else []
        engine = "all" if self.check == "engines" else self.engines[0]
        return self.example.command(str(filter.code), [*options, "--engine", engine, "--ticks", "10"])

    def test(self, subject: Subject) -> str:
        """A test for pytest that reproduces the finding by failing."""
        body = TESTS[self.check](self)
        words = {word for line in body for word in re.findall(r"\w+", line)}
        names = [name for name in NAMES if name in words or name == "Harness"]
        given = [repr(str(subject.filter.code)), repr(as_bytes(subject.filter.configuration))]
        given += [f"vm_configuration={text!r}"] if (text := subject.filter.vm_configuration) else []
        given += [f"{name}={value!r}" for name, value in subject.options.items()]
        engine = f"engine, profile={subject.profile!r}" if subject.profile != "envoy" else "engine"
        return "\n".join(
            [
                f"from proxywasm_host.testing import {', '.join(names)}",
                "",
                "",
                "def filter(engine):",
                f"    return Harness({engine})({', '.join(given)})",
                "",
                "",
                f"def test_{self.check}():",
                *(f"    {line}" for line in body),
            ]
        )


def check(subject: Subject, example: Example, wanted: frozenset[str]) -> None:
    """Check one example. Raises: Finding."""
    first = subject.engines[0]
    outcome = subject.send(example, first)
    failure = outcome.failure
    if failure is not None:
        if "trap" in wanted:
            raise Finding("trap", example, f"{failure.message} in {failure.callback}", [first])
        return
    if "local" in wanted and (sent := _local_responses(outcome)) > 1:
        raise Finding("local", example, f"{sent} were sent", [first])
    if "pause" in wanted and example.leaves_after is None and outcome.paused:
        held = ", ".join(f"{plugin} holds the {which}" for which, plugin in outcome.paused.items())
        raise Finding("pause", example, held, [first])
    if "chunks" in wanted and example.in_one != example and example.leaves_after is None:
        whole = subject.send(example.in_one, first)
        for what, one, other in _both(outcome, whole):
            if one != other:
                raise Finding("chunks", example, f"{what} {one!r} in these chunks, {other!r} in one", [first])
    if "engines" in wanted:
        for engine in subject.engines[1:]:
            there = subject.send(example, engine)
            if _comparable(there) != _comparable(outcome):
                raise Finding("engines", example, _difference(first, outcome, engine, there), [first, engine])


def check_memory(subject: Subject, example: Example) -> None:
    """Check that memory does not grow without an end on any engine. Raises: Finding."""
    for engine in subject.engines:
        with subject.harness(engine) as harness:
            under_test, scenario = harness(subject.filter), example.scenario
            scenario.set_answers(under_test)
            sizes = [0]
            while len(sizes) <= ROUNDS:
                for _ in range(ROUND):
                    scenario.send(under_test)
                    harness.recorder.timeline.clear()
                    harness.callouts.clear()
                sizes.append(sum(map(memory_size, under_test.plugins)))
                if sizes[-1] == sizes[-2]:
                    break
            else:
                grown = (sizes[-1] - sizes[1]) // (ROUND * (ROUNDS - 1))
                raise Finding("memory", example, f"by {grown} bytes on {engine}", [engine])


def memory_size(plugin: Any) -> int:
    """The size of a plugin's memory, in bytes."""
    memory = plugin._vm.instance.memory
    memory.refresh()
    return len(memory.view)


def _local_responses(outcome: Outcome) -> int:
    return sum(
        isinstance(event, Call) and event.row.name == RESPOND and not isinstance(event.result, Refusal)
        for invocation in outcome.invocations
        for event in invocation.events
    )


def _both(one: Outcome, other: Outcome) -> list[tuple[str, Any, Any]]:
    """The parts of a run that are compared. Upstream may have got more or less of a request that a filter answered."""
    compared: list[tuple[str, Any, Any]] = [("the client gets", one.response, other.response)]
    if one.local_response is None and other.local_response is None:
        compared.append(("upstream gets", one.upstream, other.upstream))
    return compared


def _comparable(outcome: Outcome) -> list[str]:
    """The parts of a run in which engines must agree; each may word a failure differently."""
    failed = outcome.failure
    lines = [line for line in outcome.lines() if failed is None or failed.message not in line]
    return [*lines, *(repr(invocation) for invocation in outcome.invocations)]


def _difference(first: str, one: Outcome, second: str, other: Outcome) -> str:
    pairs = list(zip_longest(_comparable(one), _comparable(other), fillvalue="nothing more"))
    mine, theirs = next(pair for pair in pairs if pair[0] != pair[1])
    return f"{first} {mine.strip()!r}, {second} {theirs.strip()!r}"


# -- As tests ----------------------------------------------------------------------------------------------------------


def _sent(example: Example) -> list[str]:
    """Statements that send an example through a filter ``f``."""
    return [*example.scenario.answers_source("f"), *example.scenario.source()]


def _one(*assertion: str) -> Callable[[Finding], list[str]]:
    def lines(finding: Finding) -> list[str]:
        example = finding.example
        return [f"f = filter({finding.engines[0]!r})", *_sent(example), *assertion]

    return lines


def _chunks(finding: Finding) -> list[str]:
    example = finding.example
    whole = [f"f = filter({finding.engines[0]!r})", *_sent(example.in_one)]
    parts = [f"f = filter({finding.engines[0]!r})", *_sent(example)]
    same = [f"assert outcome.{what} == whole.{what}" for what in ("response", "upstream")]
    return [*whole, "whole = outcome", *parts, *same]


def _engines(finding: Finding) -> list[str]:
    example = finding.example
    told = ["told = []", f"for engine in {finding.engines!r}:", "    f = filter(engine)"]
    told += [f"    {line}" for line in _sent(example)]
    return [*told, "    told.append(outcome.lines())", "assert told[0] == told[1]"]


def _memory(finding: Finding) -> list[str]:
    scenario = finding.example.scenario
    told = ["sizes = []", f"f = filter({finding.engines[0]!r})", *scenario.answers_source("f")]
    told += [f"for _ in range({ROUNDS}):", f"    for _ in range({ROUND}):"]
    told += [f"        {line}" for line in scenario.source()]
    return [
        *told,
        "    memory = f.plugins[0]._vm.instance.memory",
        "    memory.refresh()",
        "    sizes.append(len(memory.view))",
        "assert len(set(sizes)) < len(sizes)",
    ]


TESTS: dict[str, Callable[[Finding], list[str]]] = {
    "trap": _one("assert outcome.failure is None"),
    "local": _one(
        "sent = [event for invocation in outcome.invocations for event in invocation.events]",
        f"assert sum({RESPOND!r} in repr(event) for event in sent) <= 1",
    ),
    "pause": _one("assert outcome.paused == {}"),
    "chunks": _chunks,
    "engines": _engines,
    "memory": _memory,
}
