"""``proxywasm run --engine all``: runs a request on every usable engine, and shows how the results differ.

Time stands still and random bytes are always the same, so all differences come from the engines. Each engine has its
own wording and backtrace of a guest's failure, so only kind and place of the failure are compared.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from difflib import unified_diff
from typing import Any

from proxywasm_host.cli.json_output import dump, run_result
from proxywasm_host.engine.registry import list_engines
from proxywasm_host.errors import EngineUnavailable, ProxyWasmError
from proxywasm_host.runtime.failure import Failure, describe
from proxywasm_host.runtime.host import Host
from proxywasm_host.services import ManualClock
from proxywasm_host.testing import ExchangeResult, Recorder

__all__ = ["EngineOutcome", "agreement", "check_several", "on_all_engines"]

Perform = Callable[[str, Recorder, Callable[[Host], None]], tuple[ExchangeResult, "ProxyWasmError | Failure | None"]]


@dataclass(frozen=True)
class EngineOutcome:
    """The result on one engine: in the form of ``run --json``, and as lines to compare."""

    engine: str
    result: dict[str, Any]
    error: ProxyWasmError | Failure | None
    lines: list[str]

    @property
    def counts(self) -> str:
        """The numbers of callbacks, hostcalls and log lines."""
        hostcalls = sum(line.startswith("    ") for line in self.lines)
        return f"{len(self.result['callbacks'])} callbacks, {hostcalls} hostcalls, {len(self.result['logs'])} log lines"


def on_all_engines(perform: Perform, level: int) -> list[EngineOutcome]:
    """Run on each usable engine, the preferred one first. Raises: EngineUnavailable, if no engine is usable."""
    names = [status.name for status in list_engines() if status.usable]
    if not names:
        raise EngineUnavailable("all", "not possible, because no engine is usable here", "see proxywasm engines")
    return [_outcome(name, perform, level) for name in names]


def _outcome(name: str, perform: Perform, level: int) -> EngineOutcome:
    recorder = Recorder(level)
    result, error = perform(name, recorder, _settle)
    encoded = run_result(result, recorder, error)
    compared = {**encoded, "error": encoded["error"] and {key: encoded["error"][key] for key in ("kind", "callback")}}
    lines = dump(compared).splitlines()
    for invocation in recorder.invocations:
        lines.append(f"{invocation.plugin} {invocation.name}{invocation.arguments} = {invocation.result}")
        lines += [f"    {describe(event)}" for event in invocation.events if isinstance(event, tuple)]
    return EngineOutcome(name, encoded, error, lines)


def _settle(host: Host) -> None:
    host.services = replace(host.services, clock=ManualClock(), random=bytes)


def check_several(outcomes: list[EngineOutcome]) -> None:
    """Check that there are results to compare. Raises: EngineUnavailable."""
    if len(outcomes) == 1:
        reason = f"usable only as {outcomes[0].engine}: there is nothing to compare"
        raise EngineUnavailable("all", reason, "proxywasm engines says how to get others")


def agreement(outcomes: list[EngineOutcome]) -> list[str]:
    """How each engine differs from the first, as a diff; empty if all agree."""
    first = outcomes[0]
    return [
        line
        for other in outcomes[1:]
        for line in unified_diff(first.lines, other.lines, first.engine, other.engine, lineterm="", n=2)
    ]
