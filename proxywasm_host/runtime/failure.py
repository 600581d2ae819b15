"""The failure of a guest, in one record from which a person can find the fault.

Source of the states: ``FailState`` in ``wasm_vm.h`` of Envoy's host.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from enum import Enum
from typing import Any

from proxywasm_host.abi.marshal import Call, Refusal, RestrictedCall
from proxywasm_host.abi.types import Status, WasiErrno
from proxywasm_host.engine.protocol import Frame, Trap, TrapKind
from proxywasm_host.errors import ProxyWasmError
from proxywasm_host.runtime.demangle import demangled
from proxywasm_host.services.log import printable

__all__ = ["FailState", "Failure", "PluginError", "describe", "failure_of"]

SHOWN = 96
"""Most characters of a value in a description."""
ITEMS_SHOWN = 20
NAME_SHOWN = 512
"""Most characters of the name of a guest's function: a module can make it any length."""


class FailState(Enum):
    """The step at which a guest failed."""

    INITIALIZE = "unable to initialise"
    START = "refused to start (on_vm_start)"
    CONFIGURE = "refused its configuration (on_configure)"
    RUNTIME = "failed in a callback"


@dataclass(frozen=True, slots=True)
class Failure:
    """One failure of a VM.

    `trap` is ``None`` if the guest refused or made a forbidden call, or if code of the host raised. `backtrace` has the
    innermost frame first, `hostcalls` the last calls before the failure, oldest first.
    """

    state: FailState
    plugin: str
    callback: str
    message: str
    trap: TrapKind | None = None
    backtrace: tuple[Frame, ...] = ()
    hostcalls: tuple[Call, ...] = ()

    @property
    def kind(self) -> str:
        """``refused``, ``restricted``, ``deadline``, ``trap`` or ``host`` (an error of the embedder's own code)."""
        if self.trap is TrapKind.DEADLINE:
            return "deadline"
        if self.trap:
            return "trap"
        if self.state in (FailState.START, FailState.CONFIGURE):
            return "refused"
        return "restricted" if self.message.startswith("restricted") else "host"

    def report(self) -> str:
        """The reason, the place and the guest's last hostcalls, in several lines."""
        lines = [f"plugin {self.plugin!r} {self.state.value}: {self.message}"]
        if self.callback:
            lines.append(f"  in {self.callback}")
        lines += [f"    at {frame}" for frame in self.backtrace]
        if self.hostcalls:
            lines.append("  last hostcalls:")
            lines += [f"    {describe(call)}" for call in self.hostcalls]
        return "\n".join(map(printable, lines))

    def __str__(self) -> str:
        return self.report()


class PluginError(ProxyWasmError):
    """A plugin could not be started: its guest trapped, or refused its VM or its configuration."""

    code = "plugin"

    def __init__(self, failure: Failure) -> None:
        super().__init__(failure.report())
        self.failure = failure

    def __reduce__(self) -> tuple[type[PluginError], tuple[Failure]]:
        return type(self), (self.failure,)


def failure_of(
    state: FailState, plugin: str, callback: str, error: BaseException | str, calls: Iterable[tuple[Any, Any, Any]] = ()
) -> Failure:
    """The record of an exception that ended a call into the guest, or of a refusal given as text."""
    hostcalls = tuple(Call(*call) for call in calls)
    if isinstance(error, Trap):
        frames = tuple(replace(frame, function=_readable(frame.function)) for frame in error.frames)
        return Failure(state, plugin, callback, error.message, error.kind, frames, hostcalls)
    if isinstance(error, RestrictedCall):
        message = f"restricted: {error}"
    elif isinstance(error, str):
        message = error
    else:
        message = f"{type(error).__name__} in the host: {error}"
    return Failure(state, plugin, callback, message, None, (), hostcalls)


def _readable(name: str) -> str:
    """The name of a guest's function for a backtrace: demangled, and not too long."""
    text = demangled(name)
    return text if len(text) <= NAME_SHOWN else f"{text[:NAME_SHOWN]}…"


def _value(value: Any) -> str:
    if isinstance(value, (bytes, bytearray)):
        text = repr(bytes(value[:SHOWN]))[1:]
        return text if len(value) <= SHOWN else f"{text}… ({len(value)} bytes)"
    if isinstance(value, list):
        shown = [
            ": ".join(map(_value, item)) if isinstance(item, tuple) else _value(item) for item in value[:ITEMS_SHOWN]
        ]
        return f"[{', '.join(shown)}{', …' if len(value) > ITEMS_SHOWN else ''}]"
    if isinstance(value, tuple):
        return ", ".join(map(_value, value))
    return str(value)


def describe(call: Call) -> str:
    """One hostcall in one line: name, decoded arguments, status, results, and the reason of a refusal."""
    return printable(_described(call))


def _described(call: Call) -> str:
    row, args, result = call
    shown = []
    for param, value in zip(row.inputs, args or (), strict=False):
        if param.enum:
            shown.append(f"{param.name}={param.enum(value).name}")
        else:
            shown.append(f"{param.name}={_value(value)}")
    text = f"{row.name}({', '.join(shown) if args is not None else '…'})"
    if isinstance(result, Refusal):
        errors: type[Status | WasiErrno] = WasiErrno if row.memory_error == WasiErrno.FAULT else Status
        name = errors(result.status).name if result.status in set(errors) else str(result.status)
        return f"{text} = {name}: {result.reason}"
    return f"{text} = OK" if result is None else f"{text} = OK {_value(result)}"
