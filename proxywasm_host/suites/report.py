"""Reports of suites: TAP 14, JSON, and JUnit's XML."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from time import perf_counter
from typing import Any
from xml.etree import ElementTree as ET

from proxywasm_host.errors import ConfigError
from proxywasm_host.runtime.failure import PluginError
from proxywasm_host.services.log import printable
from proxywasm_host.suites.case import Case, Environment

__all__ = ["Verdict", "as_json", "as_junit", "as_tap", "judge", "summary"]

NOT_XML = {code: f"\\x{code:02x}" for code in range(0x20) if code not in (9, 10, 13)}


@dataclass(frozen=True)
class Verdict:
    """The result of a case on an engine: a sentence for each unmet expectation, and the time."""

    case: Case
    engine: str
    wrong: list[str] = field(default_factory=list)
    seconds: float = 0.0

    @property
    def passed(self) -> bool:
        """Whether nothing was wrong."""
        return not self.wrong

    @property
    def name(self) -> str:
        """The text of suite, case, filter and engine."""
        return printable(f"{self.case.suite}: {self.case.name} ({self.case.filter.name}, {self.engine})")


def judge(case: Case, where: Environment, engine: str) -> Verdict:
    """Run a case. It fails if a filter traps or refuses its configuration when it is loaded.

    Raises: ConfigError, ModuleError, EngineUnavailable.
    """
    start = perf_counter()
    try:
        wrong = case.run(where)
    except PluginError as error:
        wrong = [str(error)]
    except OSError as error:
        raise ConfigError(f"{case.suite}: cannot read the filter {error.filename}: {error.strerror}") from None
    return Verdict(case, engine, wrong, perf_counter() - start)


def summary(verdicts: Sequence[Verdict]) -> str:
    """The numbers of tests that passed and failed, and their time."""
    failed = sum(not verdict.passed for verdict in verdicts)
    seconds = sum(verdict.seconds for verdict in verdicts)
    return f"{len(verdicts) - failed} passed, {failed} failed in {seconds:.2f} s"


def as_tap(number: int, verdict: Verdict) -> Iterator[str]:
    """The lines of one test, with unmet expectations in a block of YAML."""
    name = verdict.name.replace("#", "\\#")  # a plain one would begin a directive
    yield f"{'ok' if verdict.passed else 'not ok'} {number} - {name}"
    if not verdict.passed:
        yield "  ---"
        yield f"  at: {json.dumps(f'{verdict.case.suite}:{verdict.case.line}', ensure_ascii=False)}"
        yield "  wrong:"
        for sentence in verdict.wrong:
            yield f"    - {json.dumps(printable(sentence), ensure_ascii=False)}"
        yield "  ..."


def as_json(verdicts: Sequence[Verdict]) -> dict[str, Any]:
    """All verdicts, as plain data."""
    return {
        "passed": sum(verdict.passed for verdict in verdicts),
        "failed": sum(not verdict.passed for verdict in verdicts),
        "tests": [
            {
                "name": verdict.case.name,
                "suite": str(verdict.case.suite),
                "line": verdict.case.line,
                "filter": str(verdict.case.filter),
                "engine": verdict.engine,
                "passed": verdict.passed,
                "wrong": verdict.wrong,
                "seconds": round(verdict.seconds, 6),
            }
            for verdict in verdicts
        ],
    }


def as_junit(verdicts: Sequence[Verdict]) -> bytes:
    """A ``<testsuites>`` element, which CI servers read, with one ``<testsuite>`` for each file."""
    root = ET.Element("testsuites")
    for suite in dict.fromkeys(verdict.case.suite for verdict in verdicts):
        own = [verdict for verdict in verdicts if verdict.case.suite == suite]
        element = ET.SubElement(
            root,
            "testsuite",
            name=str(suite),
            tests=str(len(own)),
            failures=str(sum(not verdict.passed for verdict in own)),
            errors="0",
            time=f"{sum(verdict.seconds for verdict in own):.6f}",
        )
        for verdict in own:
            test = ET.SubElement(
                element,
                "testcase",
                name=_xml(verdict.case.name),
                classname=_xml(f"{verdict.case.filter.name} ({verdict.engine})"),
                file=str(suite),
                line=str(verdict.case.line),
                time=f"{verdict.seconds:.6f}",
            )
            if not verdict.passed:
                failure = ET.SubElement(test, "failure", message=_xml(verdict.wrong[0]))
                failure.text = _xml("\n".join(verdict.wrong))
    ET.indent(root)
    text: str = ET.tostring(root, encoding="unicode")
    return f'<?xml version="1.0" encoding="utf-8"?>\n{text}\n'.encode()


def _xml(text: str) -> str:
    """Text with escapes for the characters that XML cannot express."""
    return text.translate(NOT_XML).encode("utf-8", "backslashreplace").decode()
