"""A plugin: one configuration of a filter, its root context, and the handling of its guest's failures.

States of a plugin, by the state of its VM:

    ========  ==================================================  ==============================
    state     new streams                                         ended by
    ========  ==================================================  ==============================
    running   pass through the filter                             a trap; `Plugin.close`
    failed    FAIL_CLOSED: get 503                                never
              FAIL_OPEN: pass without the filter                  never
              FAIL_RELOAD: get a new VM if the back-off is over,  a new VM that starts
              else 503
    closed    are refused                                         never
    ========  ==================================================  ==============================

Source: ``failure_policy`` and ``reload_config`` in Envoy's ``wasm.proto``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from proxywasm_host.abi.linking import Import, look_up
from proxywasm_host.abi.native import NATIVE
from proxywasm_host.abi.types import BufferType
from proxywasm_host.abi.values import PropertyValue
from proxywasm_host.errors import ProxyWasmError, UnencodableValue
from proxywasm_host.runtime.effects import Effect
from proxywasm_host.runtime.failure import FailState, Failure, PluginError
from proxywasm_host.runtime.failure_policy import FailurePolicy
from proxywasm_host.runtime.fast_path import PluginBase
from proxywasm_host.runtime.root import RootContext
from proxywasm_host.runtime.vm import Vm

if TYPE_CHECKING:
    from proxywasm_host.runtime.filter_config import FilterConfig
    from proxywasm_host.runtime.host import Host

__all__ = ["Plugin", "VmUsage"]

MAX_BACKOFF = 10
"""The longest back-off, in multiples of the reload interval."""
START_BACKOFF = 1.0
"""Base of the back-off in seconds for a VM that does not start, if `FilterConfig.reload_interval` is 0."""


@dataclass(frozen=True)
class VmUsage:
    """The resources that a plugin's VM uses, and how long it has run.

    Args:
        memory: bytes of the guest's memory; 0 after it has failed.
        peak_memory: the most bytes that any VM of this plugin has had, including failed ones. (WebAssembly memory only
            grows, so a VM has its peak at its end.)
        generation: 1 for the first VM of the plugin, and one more for each that replaced a failed one.
        streams: open streams of the plugin, in this VM or in separate ones (`FilterConfig.isolation`).
        contexts: number of contexts made in it: one for each plugin, and one for each stream in each plugin.
        age: seconds since it started.
        isolated_memory: bytes of the memory of the separate VMs of streams.
    """

    memory: int
    peak_memory: int
    generation: int
    streams: int
    contexts: int
    age: float
    isolated_memory: int = 0


class Plugin(PluginBase):
    """A running plugin. Made by `Host.load_plugin`."""

    _root: RootContext

    def __init__(self, host: Host, config: FilterConfig, make_vm: Callable[[], Vm], vm: Vm) -> None:
        """Start and configure the plugin in `vm`. Raises: PluginError."""
        self.host = host
        self.config = config
        self.name = config.plugin_name
        text = config.configuration
        self._configuration = text.encode() if isinstance(text, str) else text
        self.reloads = 0
        """Number of new VMs that replaced failed ones."""
        self.on_failure: list[Callable[[Failure], None]] = []
        """Functions that are called with the `Failure` when the guest fails (in a stream of this plugin or of another
        in the same VM), and when the replacement of a failed VM does not start."""
        self._make_vm = make_vm
        self._peak_memory = 0
        self._isolated: dict[Vm, None] = {}
        """The separate VMs of open streams."""
        self._by_cluster: dict[str, int] = {}
        """Number of callouts under way to each cluster, from all its VMs."""
        self._attempts = 0
        self._retry_at = 0.0
        self._started_at = 0.0
        self._start_took = 0.0
        """Seconds that the start of the current VM took; 0 for the first."""
        self._begin(vm)

    def _begin(self, vm: Vm) -> None:
        self._vm = vm
        self._root = RootContext(vm, self)
        for state, callback, accept in (
            (FailState.START, "proxy_on_vm_start", self._root.start),
            (FailState.CONFIGURE, "proxy_on_configure", self._root.configure),
        ):
            accepted = accept()
            if vm.failure or not accepted:
                self._root.drop()
                self.host._forget(self)
                if vm.failure is None:
                    raise vm.refused(state, self.name, callback)
                raise PluginError(vm.failure)
        self._started_at = self._now()
        vm.on_failure.append(self._vm_failed)

    def _now(self) -> float:
        return self.host.services.clock.monotonic_ns() / 1e9

    @property
    def imports(self) -> list[Import]:
        """The status of each import of the module: available, a stub, or refused to this filter."""
        config = self._vm.config
        given = config.capabilities, config.unknown_imports, config.hostcalls
        return look_up(self._vm.bytecode.imports, self._vm.version, *given)

    # -- State ---------------------------------------------------------------------------------------------------

    @property
    def failure(self) -> Failure | None:
        """The guest's failure, or ``None`` while it runs."""
        return self._vm.failure

    @property
    def _bypassed(self) -> bool:
        """Whether new streams skip this filter."""
        return self.failure is not None and self.config.failure_policy is FailurePolicy.FAIL_OPEN

    def usage(self) -> VmUsage:
        """The resources that its VM uses. Call it in the thread of the host."""
        vm, root = self._vm, self._root
        memory = 0 if vm.failure else vm.memory_bytes
        isolated = [each.memory_bytes for each in self._isolated]
        self._peak_memory = max(self._peak_memory, memory, *isolated)
        streams = sum(context.root is root and context is not root for context in vm.contexts.values()) + len(isolated)
        age = self._now() - self._started_at
        generation, contexts = self.reloads + 1, vm.next_context - 1
        return VmUsage(memory, self._peak_memory, generation, streams, contexts, age, sum(isolated))

    def _isolated_over(self, vm: Vm) -> None:
        """Note the end of a stream with a separate VM."""
        if not vm.failure:
            self._peak_memory = max(self._peak_memory, vm.memory_bytes)
        self._isolated.pop(vm, None)

    def _vm_failed(self, failure: Failure) -> None:
        self._peak_memory = max(self._peak_memory, self._vm.memory_bytes)
        self._tell(failure)
        self._root.drop()
        if self.config.failure_policy is FailurePolicy.FAIL_RELOAD:
            base, now = self.config.reload_interval, self._now()
            if now - self._started_at > base * MAX_BACKOFF:
                self._attempts = 0
            if base:
                self._back_off(base)
            else:
                self._retry_at = now + self._start_took

    def _tell(self, failure: Failure) -> None:
        for told in self.on_failure:
            told(failure)

    def _back_off(self, base: float) -> None:
        wait = min(base * 2**self._attempts, base * MAX_BACKOFF)
        self._attempts = min(self._attempts + 1, 16)
        jitter = int.from_bytes(self.host.services.random(1), "little") / 255
        self._retry_at = self._now() + wait * (1 + jitter) / 2

    def _ready(self) -> bool:
        """Whether a new stream gets this filter; a failed VM is replaced first, if the policy allows it.

        Raises: RuntimeError, if the plugin was closed.
        """
        if self.closed:
            raise RuntimeError(f"{self!r} was closed")
        self.heal()
        return not self._bypassed

    def heal(self) -> None:
        """Replace a failed VM, if the policy is FAIL_RELOAD and the back-off is over."""
        if self.failure is None or self.config.failure_policy is not FailurePolicy.FAIL_RELOAD or self.closed:
            return
        began = self._now()
        if began < self._retry_at:
            return
        vm, root = self._vm, self._root
        try:
            self._begin(self._make_vm())
        except ProxyWasmError as error:
            left, self._vm, self._root = self._vm, vm, root  # the old one has failed, the new one may only have refused
            self._back_off(self.config.reload_interval or START_BACKOFF)
            if isinstance(error, PluginError):
                self._tell(error.failure)
        else:
            left = vm
            self._start_took = self._started_at - began
            self.reloads += 1
        if left is not self._vm:
            self.host._vm_left(left)

    # -- Events --------------------------------------------------------------------------------------------------

    def tick(self) -> list[Effect]:
        """Call on_tick, because the tick period has passed."""
        if self._root.tick_period:
            self._vm.call(self._root, "on_tick", self._root.id)
        return self.host.drain()

    def queue_ready(self, token: int) -> list[Effect]:
        """Call on_queue_ready for a message in a queue that this plugin registered."""
        root = self._root
        root.queue_notifications.acknowledge()
        self._vm.defer(self._call, root, "on_queue_ready", token)
        return self.host.drain()

    def foreign_function(self, function: int, arguments: bytes) -> list[Effect]:
        """Call on_foreign_function with a number and an argument of the embedder."""
        root = self._root
        root.buffers[BufferType.CALL_DATA] = arguments
        self._call(root, "on_foreign_function", function, len(arguments))
        root.buffers[BufferType.CALL_DATA] = None
        return self.host.drain()

    def _call(self, root: RootContext, name: str, *args: int) -> None:
        if not root.deleted:
            self._vm.call(root, name, root.id, *args)

    def close(self) -> list[Effect]:
        """End the plugin after its last stream is closed: on_done, then on_delete (at once, or at ``proxy_done``).

        New streams through it are refused. Closing again does nothing.
        """
        if not self.closed:
            self.closed = True
            if self._root.deleted:
                self.host._plugin_gone(self)
            else:
                self._stream_gone()
        return self.host.drain()

    def _stream_gone(self) -> None:
        """Note that a stream context was deleted; a closed plugin ends with its last one."""
        root = self._root
        if self.closed and not any(c.root is root and c is not root for c in self._vm.contexts.values()):
            root.close()

    def _context_gone(self, root: RootContext) -> None:
        """Note that the root context was deleted."""
        if self.closed:
            self.host._plugin_gone(self)

    # -- Properties ----------------------------------------------------------------------------------------------

    def _get_property(self, path: Sequence[str]) -> PropertyValue:
        """Properties that do not depend on a stream. Raises: LookupError, UnencodableValue."""
        if path[0] in ("", "xds") and len(path) == 1:
            raise UnencodableValue("it is a mapping, of which only entries can be read")
        if len(path) == 1 and path[0] in ("plugin_name", "plugin_root_id", "plugin_vm_id"):
            config = self.config
            return {
                "plugin_name": self.name,
                "plugin_root_id": config.root_id,
                "plugin_vm_id": config.vm_id,
            }[path[0]]
        if path[0] == "plugin_vm_memory":
            return self._vm.memory_bytes.to_bytes(8, "little")
        return self.host._get_property(path)

    def __repr__(self) -> str:
        state = "closed" if self.closed else "failed" if self.failure else "running"
        return f"<Plugin {self.name!r} {state}>"


if NATIVE is not None:
    NATIVE.use(plugin=Plugin)
