"""Coverage of filters by tests: which callbacks, hostcalls and statuses each filter has had.

A filter is fully covered if each exported callback was called and each imported hostcall was made; missing ones are
named. Statuses are also listed, because a hostcall that always returned OK was not tested for failure.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from html import escape
from types import MappingProxyType
from typing import TYPE_CHECKING

from proxywasm_host.abi.marshal import Call
from proxywasm_host.abi.table import WASI, callbacks_of, hostcalls_of
from proxywasm_host.abi.types import Status, WasiErrno
from proxywasm_host.testing.function_counters import FunctionCounters, namespace
from proxywasm_host.testing.timeline import Invocation, Recorder

if TYPE_CHECKING:
    from proxywasm_host.runtime.plugin import Plugin

__all__ = ["Coverage", "FilterCoverage"]

_OF_WASI = frozenset(row.name for row in WASI)


@dataclass
class FilterCoverage:
    """Coverage of one filter. `callbacks` and `hostcalls` include those that were never used."""

    name: str
    callbacks: Counter[str] = field(default_factory=Counter)
    """Number of calls of each exported callback."""
    hostcalls: dict[str, Counter[str]] = field(default_factory=dict)
    """Number of results with each status, for each imported hostcall."""
    functions: Counter[str] = field(default_factory=Counter)
    """Number of entries of each function of the module, if they were counted and the module has names."""

    @property
    def missed(self) -> list[str]:
        """The callbacks that were not called, and the hostcalls that were not made."""
        return [name for name, times in self.callbacks.items() if not times] + [
            name for name, statuses in self.hostcalls.items() if not statuses
        ]

    @property
    def percent(self) -> float:
        """Percentage of callbacks and hostcalls that were used; 100 for an empty module."""
        whole = len(self.callbacks) + len(self.hostcalls)
        return 100.0 if not whole else 100 * (whole - len(self.missed)) / whole


class Coverage:
    """Coverage of all filters, by name. `add` adds the entries of a recorder."""

    def __init__(self) -> None:
        self.filters: dict[str, FilterCoverage] = {}

    def add(
        self,
        plugins: Iterable[Plugin],
        recorder: Recorder,
        counters: Mapping[Plugin, FunctionCounters] = MappingProxyType({}),
    ) -> None:
        """Add the calls of these plugins, and the counters of their functions."""
        for plugin in plugins:
            bytecode = plugin._vm.bytecode
            known, imports = callbacks_of(bytecode.abi_version), hostcalls_of(bytecode.abi_version)
            of = self.filters.setdefault(plugin.name, FilterCoverage(plugin.name))
            if plugin in counters:
                of.functions.update(counters[plugin].take())
            for name, kind, _ in bytecode.exports:
                if kind == "function" and name in known:
                    of.callbacks[name] += 0
            for _, name, *_ in bytecode.imports:
                if name in imports:
                    of.hostcalls.setdefault(name, Counter())
        for entry in recorder.timeline:
            if isinstance(entry, Invocation) and entry.plugin in self.filters:
                of = self.filters[entry.plugin]
                of.callbacks[entry.name] += 1
                for event in entry.events:
                    if isinstance(event, Call) and event.row.name not in _OF_WASI:
                        of.hostcalls.setdefault(event.row.name, Counter())[_status(event)] += 1

    def merge(self, told: str) -> None:
        """Add the coverage of another process, in the form of `as_json`."""
        for name, of in json.loads(told).items():
            ours = self.filters.setdefault(name, FilterCoverage(name))
            for callback, times in of["callbacks"].items():
                ours.callbacks[callback] += times
            for function, times in of["functions"].items():
                ours.functions[function] += times
            for hostcall, statuses in of["hostcalls"].items():
                ours.hostcalls.setdefault(hostcall, Counter()).update(statuses)

    def under(self, percent: float) -> list[str]:
        """A sentence for each filter with less coverage than `percent`."""
        return [
            f"{of.name}: {of.percent:.0f} % is under {percent:g} %; not reached: {', '.join(of.missed)}"
            for of in self.filters.values()
            if of.percent < percent
        ]

    # -- Reports -------------------------------------------------------------------------------------------------

    def table(self) -> list[str]:
        """A report as lines for a terminal."""
        lines = []
        for of in self.filters.values():
            whole = f"{len(of.callbacks)} callbacks, {len(of.hostcalls)} hostcalls"
            lines.append(f"{of.name or '(no name)'}: {of.percent:.0f} % of {whole}")
            lines += [f"  {name:<42} {times or 'never called'}" for name, times in of.callbacks.items()]
            lines += [f"  {name:<42} {_told(statuses)}" for name, statuses in of.hostcalls.items()]
            lines += _functions(of)
        return lines

    def as_json(self) -> str:
        """JSON: ``{filter: {percent, callbacks: {name: times}, hostcalls: {name: {status: times}}, missed,
        functions}}``.
        """
        return json.dumps(
            {
                of.name: {
                    "percent": round(of.percent, 1),
                    "callbacks": dict(of.callbacks),
                    "hostcalls": {name: dict(statuses) for name, statuses in of.hostcalls.items()},
                    "missed": of.missed,
                    "functions": dict(of.functions),
                }
                for of in self.filters.values()
            },
            indent=2,
        )

    def as_html(self) -> str:
        """A report as an HTML page."""
        parts = [
            "<!doctype html><html lang=en><meta charset=utf-8><title>Coverage of the Proxy-Wasm ABI</title>",
            (
                "<style>body{font:15px/1.5 system-ui;margin:2rem auto;max-width:50rem;padding:0 1rem}"
                "table{border-collapse:collapse;width:100%}td{border-bottom:1px solid #ccc;padding:.2rem .5rem}"
                ".no{background:#fdd}code{font-size:14px}</style><h1>Coverage of the Proxy-Wasm ABI</h1>"
            ),
        ]
        for of in self.filters.values():
            parts.append(f"<h2>{escape(of.name)}: {of.percent:.0f} %</h2><table>")
            rows = [(name, str(times) if times else "") for name, times in of.callbacks.items()]
            rows += [(name, _told(statuses) if statuses else "") for name, statuses in of.hostcalls.items()]
            parts += [
                f"<tr{'' if told else ' class=no'}><td><code>{escape(name)}</code><td>{escape(told) or 'never'}"
                for name, told in rows
            ]
            parts.append("</table>")
            for named, times in by_namespace(of.functions).items():
                entered = sum(map(bool, times.values()))
                said = f"functions{f' of {escape(named)}' if named else ''}: {entered} of {len(times)}"
                parts.append(f"<details{'' if named in LIBRARIES else ' open'}><summary>{said}</summary><table>")
                parts += [
                    f"<tr{'' if count else ' class=no'}><td><code>{escape(name)}</code><td>{count or 'never'}"
                    for name, count in times.items()
                ]
                parts.append("</table></details>")
        return "\n".join([*parts, ""])


LIBRARIES = frozenset(
    (
        *("", "__rustc", "alloc", "compiler_builtins", "core", "dlmalloc", "foldhash", "hashbrown", "log", "std"),
        *("proxy_wasm", "internal", "runtime", "syscall", "~lib", "emscripten"),
    )
)
"""Namespaces of libraries, whose unused functions are not listed individually."""
NAMED = 12
"""Maximum number of functions in a line."""


def by_namespace(functions: Mapping[str, int]) -> dict[str, dict[str, int]]:
    """Functions with their counts, by `namespace`; that of the filter comes first."""
    found: dict[str, dict[str, int]] = {}
    for name, times in functions.items():
        found.setdefault(namespace(name), {})[name] = times
    return dict(sorted(found.items(), key=lambda each: (each[0] in LIBRARIES, each[0])))


def _functions(of: FilterCoverage) -> list[str]:
    if not of.functions:
        return []
    lines = [f"  functions: {sum(map(bool, of.functions.values()))} of {len(of.functions)} entered"]
    for named, times in by_namespace(of.functions).items():
        never = [name for name, count in times.items() if not count]
        told = f"    {named or '(no namespace)'}: {len(times) - len(never)} of {len(times)}"
        if never and named not in LIBRARIES:
            more = f" and {len(never) - NAMED} more" if len(never) > NAMED else ""
            told += f"; never {', '.join(never[:NAMED])}{more}"
        lines.append(told)
    return lines


def _told(statuses: Counter[str]) -> str:
    return ", ".join(f"{name} {times}" for name, times in statuses.items()) or "never made"


def _status(call: Call) -> str:
    kind: type[Status | WasiErrno] = WasiErrno if call.row.memory_error == WasiErrno.FAULT else Status
    return kind(call.status).name if call.status in set(kind) else str(call.status)
