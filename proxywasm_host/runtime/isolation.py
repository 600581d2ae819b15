"""VMs of a single stream: `FilterConfig.isolation`, which is ngx_wasm_module's ``proxy_wasm_isolation``.

========== =====================================================================
``none``   all streams share the VM of the plugin
``stream`` a stream has a VM for all of its plugins that would share one
``filter`` a stream has a VM for each of its plugins
========== =====================================================================

Rules, from that module:

* Such a VM is another instance of the compiled module. Its root context is made and configured, without on_vm_start.
* It ends with its stream, without a callback in its root context.
* Only the plugin's own VM gets ticks and messages in queues: a stream's root context cannot set a tick period.
* A VM that fails, cannot be made or refuses its configuration ends its stream and nothing else.
* Callouts under way are counted for the plugin, over all of its VMs.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from proxywasm_host.runtime.failure import FailState, Failure, PluginError
from proxywasm_host.runtime.plugin import Plugin
from proxywasm_host.runtime.root import RootContext

if TYPE_CHECKING:
    from proxywasm_host.runtime.host import Host
    from proxywasm_host.runtime.vm import Vm

__all__ = ["StreamPlugin", "StreamVms"]


class StreamRoot(RootContext):
    """The root context of a plugin in a stream's VM."""

    plugin: StreamPlugin

    def set_tick_period(self, milliseconds: int) -> None:
        """Do nothing: only the plugin's own root context gets ticks."""

    def register_queue(self, name: bytes) -> int:
        """Register a queue for the plugin's own VM, which is notified of its messages."""
        return self.plugin.own._root.register_queue(name)


class StreamPlugin(Plugin):
    """A plugin in the VM of one stream. Raises: PluginError."""

    def __init__(self, own: Plugin, vm: Vm) -> None:
        """Configure the plugin `own` in another VM."""
        self.own = own
        super().__init__(own.host, own.config, own._make_vm, vm)
        own._isolated[vm] = None

    def _begin(self, vm: Vm) -> None:
        self.on_failure, self._by_cluster = self.own.on_failure, self.own._by_cluster
        self._vm = vm
        self._root = root = StreamRoot(vm, self)
        vm.on_failure.append(self._vm_failed)
        root.create()
        accepted = root.configure()
        if vm.failure is not None:
            raise PluginError(vm.failure)
        if not accepted:
            error = vm.refused(FailState.CONFIGURE, self.name, "proxy_on_configure")
            self._tell(error.failure)
            raise error

    def _vm_failed(self, failure: Failure) -> None:
        self._tell(failure)
        self._root.drop()


class StreamVms:
    """The VMs of one stream. Raises: PluginError, if one cannot be made, or refuses its configuration."""

    def __init__(self, host: Host, plugins: Sequence[Plugin]) -> None:
        self._host = host
        self.plugins: list[Plugin] = []
        """The plugins of the stream; isolated ones are in a VM of the stream."""
        self._vms: list[Vm] = []
        shared: dict[Vm, Vm] = {}
        """VMs of the isolation ``stream``, by the VM of their plugins."""
        try:
            for plugin in plugins:
                if plugin.config.isolation == "none":
                    self.plugins.append(plugin)
                    continue
                by_stream = plugin.config.isolation == "stream"
                vm = shared.get(plugin._vm) if by_stream else None
                if vm is None:
                    vm = host._another(plugin._vm, plugin.name)
                    self._vms.append(vm)
                    if by_stream:
                        shared[plugin._vm] = vm
                self.plugins.append(StreamPlugin(plugin, vm))
        except PluginError:
            self.end()
            raise

    def end(self) -> None:
        """Free the VMs at the end of the stream. The guests get no callback."""
        for plugin in self.plugins:
            if isinstance(plugin, StreamPlugin):
                plugin.own._isolated_over(plugin._vm)
                plugin.closed = True
                plugin._root.drop()
        for vm in self._vms:
            self._host._end(vm)
