"""``proxywasm run --engine all``: the same request on every usable engine, and how the results differ.

Time stands still and random bytes are always the same, so that whatever differs is the engines' doing. How a guest's
failure is worded, and its backtrace, are an engine's own; that it failed, how and where is compared.
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
    """What one engine made of the request: as ``run --json`` has it, and as lines to compare."""

    engine: str
    result: dict[str, Any]
    error: ProxyWasmError | Failure | None
    lines: list[str]

    @property
    def counts(self) -> str:
        """How much happened."""
        hostcalls = sum(line.startswith("    ") for line in self.lines)
        return f"{len(self.result['callbacks'])} callbacks, {hostcalls} hostcalls, {len(self.result['logs'])} log lines"


def on_all_engines(perform: Perform, level: int) -> list[EngineOutcome]:
    """Run on each usable engine, the best first. Raises: EngineUnavailable, if there is none."""
    names = [status.name for status in list_engines() if status.usable]
    if not names:
        raise EngineUnavailable("all", "none: not one engine is usable here", "see proxywasm engines")
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
    """Raises: EngineUnavailable, if there was nothing to compare."""
    if len(outcomes) == 1:
        reason = f"one alone, {outcomes[0].engine}: there is nothing to compare"
        raise EngineUnavailable("all", reason, "proxywasm engines says how to get others")


def agreement(outcomes: list[EngineOutcome]) -> list[str]:
    """How each engine differs from the first, as a diff; nothing if all agree."""
    first = outcomes[0]
    return [
        line
        for other in outcomes[1:]
        for line in unified_diff(first.lines, other.lines, first.engine, other.engine, lineterm="", n=2)
    ]
