"""A VM: one instance of a module and its contexts, and the only way to call the guest.

Rules of this module:

* The guest is entered only through `Vm.enter`, and never while it runs. An action that must call it meanwhile (a
  resumed stream, a reply, a local response) waits in `Vm.deferred` and runs, first in first out, when the outermost
  callback has returned. SDKs are not re-entrant (Envoy: ``addAfterVmCallAction``).
* A callback that does not return makes the VM fail for good, because its memory may be in any state. `Vm.failure` has
  the reason; a failed VM is never entered again. All of its streams end at once, or continue without the filter, by the
  plugin's policy: one that waits for the guest would wait for ever (Envoy leaves that to its idle timeout).
* The host counts the bytes that hostcalls make it keep: effects that the embedder has not taken yet
  (`Vm.reserve_effect`), and unfinished work (`Vm.unfinished_quota`), mostly callouts. Each may be as much as the
  guest's memory may be; more raises `QuotaExceeded`.
* The effective context is the current one at each entry (``set_effective_context`` lasts until the callback returns).

Source: ``wasm.cc`` and ``context.cc`` of Envoy's host.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

from proxywasm_host.abi.bytecode import Bytecode
from proxywasm_host.abi.context import Context
from proxywasm_host.abi.custom import CustomHostcall
from proxywasm_host.abi.linking import ALLOCATOR_MAY_CALL, START_MAY_CALL, check_exports, link
from proxywasm_host.abi.marshal import Call, Calls, Guest
from proxywasm_host.abi.module_limits import DEFAULT_MODULE_LIMITS, ModuleLimits, memory_beside_tables
from proxywasm_host.abi.profile import ENVOY, Profile
from proxywasm_host.abi.table import Callback, callbacks_of
from proxywasm_host.abi.types import AbiVersion
from proxywasm_host.engine.protocol import FunctionType, HostFunction, Instance, Limits, LinkError, Module
from proxywasm_host.errors import ModuleError
from proxywasm_host.runtime.failure import FailState, Failure, PluginError, failure_of
from proxywasm_host.runtime.standard_streams import StandardStreams
from proxywasm_host.runtime.vm_base import VmBase
from proxywasm_host.services import GuestLog, Services
from proxywasm_host.services.quota import Quota

if TYPE_CHECKING:
    from proxywasm_host.abi.held_body import HeldBody
    from proxywasm_host.abi.pairs import HeaderList
    from proxywasm_host.runtime.listener import Listener
    from proxywasm_host.runtime.outbox import Outbox

__all__ = ["Vm", "VmConfig", "kept_bytes"]

REMEMBERED_CALLS = 16
BODY_CALLS = ("proxy_set_buffer_bytes", "proxy_inject_encoded_data_to_filter_chain")
"""Hostcalls that can change a body."""
GIB = 1 << 30
DEFAULT_LIMITS = Limits(memory=GIB)
"""Envoy's limit (``limits.h`` of its host)."""
EFFECT, PAIR = 512, 128
"""Bytes of an effect, and of each of its headers, in addition to their content."""


def kept_bytes(*parts: bytes | HeldBody | str | HeaderList) -> int:
    """Bytes that an effect with these parts costs."""
    size = EFFECT
    for part in parts:
        if part.__class__ is list:
            for name, value in part:
                size += PAIR + len(name) + len(value)
        else:
            size += len(part)
    return size


@dataclass(frozen=True)
class VmConfig:
    """The options of a VM. Plugins with equal options share a VM.

    `code` is the module's bytes. `capabilities` has the names of the allowed hostcalls and callbacks; ``None`` allows
    all. `environment` are the guest's environment variables. `hostcalls` are the embedder's.
    """

    code: bytes = field(repr=False)
    vm_id: str = ""
    configuration: bytes = field(default=b"", repr=False)
    environment: Mapping[str, str] = field(default_factory=dict)
    capabilities: frozenset[str] | None = None
    unknown_imports: Literal["error", "stub"] = "error"
    profile: Profile = ENVOY
    limits: Limits = DEFAULT_LIMITS
    module_limits: ModuleLimits = DEFAULT_MODULE_LIMITS
    hostcalls: tuple[CustomHostcall, ...] = ()


class Vm(VmBase):
    """One running module. Made by a `Host`."""

    def __init__(
        self,
        config: VmConfig,
        bytecode: Bytecode,
        compile: Callable[[], Module],
        services: Services,
        outbox: Outbox,
        listener: Listener | None = None,
        plugin_name: str = "",
    ) -> None:
        """Link, instantiate and initialise. Raises: ModuleError, PluginError."""
        super().__init__(Context(0), deque())
        self.config = config
        self.bytecode = bytecode
        self.version: AbiVersion = bytecode.abi_version
        self.profile = config.profile
        self.services = services
        self._outbox = outbox
        self._effect_quota = Quota("the effects of this VM that have not been taken yet", config.limits.memory)
        self._waiting_since = 0
        self.unfinished_quota = Quota("the unfinished callouts and streams of this VM", config.limits.memory)
        self.vm_id = config.vm_id
        self.vm_configuration = config.configuration
        self.environment = config.environment
        self.contexts = {0: Context(0)}
        self.log_before_done, self.await_done = self.profile.log_before_done, self.profile.await_done
        self.tells_end = self.version > AbiVersion.V0_1_0
        allowed = config.capabilities
        self.changes_bodies = any(
            name in BODY_CALLS and (allowed is None or name in allowed) for _, name, _, _ in bytecode.imports
        )
        self.metrics: tuple[tuple[list[str], dict[str, int]], ...] = (([], {}), ([], {}), ([], {}))
        self._draining = False
        self.calls = Calls(REMEMBERED_CALLS)
        self._output = StandardStreams(self.log)
        self.on_failure: list[Callable[[Failure], None]] = []
        self._next_token: dict[int, int] = {}
        self._plugin_name = plugin_name

        higress = self.version >= AbiVersion.V0_2_100
        strict = self.profile.restricted_allocator and not higress
        self._functions: dict[str, tuple[Callback, Callable[..., Any]]] = {}
        """The guest's callbacks by key, each with its row."""
        self.guest = Guest(self.calls.append, ALLOCATOR_MAY_CALL if strict else None)
        self.listen(listener)
        allocator = check_exports(bytecode.exports, self.version)
        limits = replace(config.limits, memory=memory_beside_tables(bytecode, config.limits.memory))
        functions = [
            HostFunction(module, name, FunctionType(*signature), call)
            for module, name, signature, call in link(
                bytecode.imports,
                self.version,
                self,
                self.guest,
                config.capabilities,
                config.unknown_imports,
                config.hostcalls,
            )
        ]
        self.module = module = compile()
        if self.profile.restricted_start:
            self.guest.allowed = START_MAY_CALL
        try:
            self.instance: Instance = module.instantiate(functions, limits, self._bind)
        except LinkError as error:
            raise ModuleError(f"the module cannot be instantiated: {error}") from None
        except Exception as error:
            raise PluginError(self._failed(FailState.INITIALIZE, "the start function", error)) from error
        self._bind(self.instance)
        found = self.instance.function(allocator)
        assert found is not None  # noqa: S101 - `check_exports` has found it
        self.guest.use_allocator(found)
        self._resolve(config.capabilities)
        self._initialise()
        self._output.flush()
        self.guest.allowed = None

    def listen(self, listener: Listener | None) -> None:
        """Report every callback and hostcall to a listener, which replaces the previous one; ``None`` reports nothing.

        Not to be called by a listener, nor while the guest runs.
        """
        self.listener = listener
        self.guest.record = self.calls.append if listener is None else self._recorder(listener)
        self.callbacks = {
            key: function if listener is None else self._reporting(row, function, listener)
            for key, (row, function) in self._functions.items()
        }

    def _recorder(self, listener: Listener) -> Callable[[tuple[Any, Any, Any]], None]:
        calls = self.calls

        def record(call: tuple[Any, Any, Any]) -> None:
            calls.append(call)
            listener.hostcall(self.context, Call(*call))

        return record

    def _bind(self, instance: Instance) -> None:
        if instance.memory is not None:
            self.guest.memory = instance.memory

    def _resolve(self, allowed: frozenset[str] | None) -> None:
        for name, row in callbacks_of(self.version).items():
            function = self.instance.function(name)
            if function is not None and (allowed is None or name in allowed):
                self._functions[row.key] = row, function
        self.listen(self.listener)

    def _reporting(self, row: Callback, function: Callable[..., Any], listener: Listener) -> Callable[..., Any]:
        """A callback that calls the listener when it begins and ends."""

        def reporting(*args: int) -> Any:
            context = self.context
            listener.callback(context, row, args)
            try:
                result = function(*args)
            except BaseException:
                listener.returned(context, row, None, failed=True)
                raise
            listener.returned(context, row, result, failed=False)
            return result

        return reporting

    def _initialise(self) -> None:
        """Call ``_initialize`` and then ``main`` or ``__main_void``; else ``_start`` (``startVm`` in ``wasm.cc``)."""
        steps: tuple[tuple[str, tuple[int, ...]], ...] = (("_start", ()),)
        if self.instance.function("_initialize"):
            main = ("main", (0, 0)) if self.instance.function("main") else ("__main_void", ())
            steps = (("_initialize", ()), main)
        for name, args in steps:
            function = self.instance.function(name)
            if function is None:
                continue
            try:
                function(*args)
            except Exception as error:
                raise PluginError(self._failed(FailState.INITIALIZE, name, error)) from error

    # -- Into the guest ------------------------------------------------------------------------------------------

    def ended(self, context: Context, callback: Callable[..., Any], error: BaseException) -> None:
        """Make the VM fail, because a callback did not return."""
        name = next(name for name, known in self.callbacks.items() if known is callback)
        self._failed(FailState.RUNTIME, f"proxy_{name}", error, context.name)
        if not isinstance(error, Exception):
            self.run_deferred()  # `enter` will not, because it raises the exception again

    @property
    def running(self) -> bool:
        """Whether the guest runs a callback."""
        return self.context is not self.idle

    @property
    def busy(self) -> bool:
        """Whether the guest runs a callback, or deferred actions run."""
        return self.running or self._draining

    def run_deferred(self) -> None:
        """Run deferred actions, and those that they add, in one loop: guests must not make the host's stack grow."""
        if self._draining:
            return
        self._draining = True
        try:
            while self.deferred:
                self.deferred.popleft()()
        finally:
            self._draining = False

    def defer(self, action: Callable[..., object], *arguments: Any) -> None:
        """Run an action after the guest returns, or at once if it does not run (``addAfterVmCallAction``)."""
        if self.running:
            self.deferred.append(partial(action, *arguments))
        else:
            action(*arguments)

    def reserve_effect(self, size: int = EFFECT) -> None:
        """Reserve bytes for an effect of a hostcall, until effects are taken. Raises: QuotaExceeded."""
        drained = self._outbox.drained
        if drained != self._waiting_since:
            self._waiting_since = drained
            self._effect_quota.used = 0
        self._effect_quota.reserve(size)

    # -- Failure -------------------------------------------------------------------------------------------------

    def refused(self, state: FailState, plugin: str, callback: str) -> PluginError:
        """The error for a guest that returned false while it started."""
        return PluginError(failure_of(state, plugin, callback, f"{callback} returned false", self.calls))

    def _failed(self, state: FailState, callback: str, error: BaseException, plugin: str = "") -> Failure:
        self._output.flush()
        self.failure = failure = failure_of(state, plugin or self._plugin_name, callback, error, self.calls)
        self.deferred.clear()
        if self.running:
            self.deferred.append(self._end_streams)
        self.stop_iteration = False
        for notify in self.on_failure:
            notify(failure)
        return failure

    def _end_streams(self) -> None:
        for context in list(self.contexts.values()):
            context.vm_failed()

    # -- Contexts and tokens -------------------------------------------------------------------------------------

    def new_token(self, kind: int) -> int:
        """A token for a callout: its two lowest bits are the kind, and it counts in steps of 4 (as in Envoy's host)."""
        token = self._next_token.get(kind, 4 + kind)
        self._next_token[kind] = token + 4 & 0xFFFFFFFF or 4 + kind
        return token

    def set_next_token(self, token: int) -> None:
        """Set the token of the next callout of its kind, for a replay."""
        self._next_token[token & 3] = token

    # -- What hostcalls need -------------------------------------------------------------------------------------

    def log(self, level: int, message: bytes, context: Context | None = None) -> None:
        """Log a line of the guest, which it wrote in `context`; by default, in the current one."""
        context = context or self.context
        line = GuestLog(context.name or self._plugin_name, level, message.decode("utf-8", "replace"), context.id)
        self.services.log.log(line)

    def write(self, level: int, data: bytes) -> None:
        """Add to a standard stream of the guest, which is logged in whole lines."""
        if self._output.write(self.context, level, data) and self.running:
            self.deferred.append(self._output.flush)

    # -- The end -------------------------------------------------------------------------------------------------

    @property
    def memory_bytes(self) -> int:
        """Size of the guest's memory."""
        self.guest.memory.refresh()
        return len(self.guest.memory.view)

    def close(self) -> None:
        """Free the instance, without a callback."""
        if self.failure is None:
            self.failure = Failure(FailState.RUNTIME, self._plugin_name, "", "the VM was closed")
        self.instance.close()

    def __repr__(self) -> str:
        state = f"failed: {self.failure.message}" if self.failure else "running"
        return f"<Vm {self.vm_id!r} of {self._plugin_name!r}, ABI {self.version.name[1:].replace('_', '.')}, {state}>"
