"""The host: loads plugins and makes streams, for one thread.

Rules of this module:

* A host and everything that it made belong to one thread at a time. Several threads need a host each. Their hosts may
  share services, through which VMs in these threads communicate (shared data, queues, metrics).
* Plugins with equal code, vm_id, VM configuration and options of the VM share a VM. A plugin that joins other plugins
  in a VM is first tried in a separate VM (Envoy's canary), so that a bad configuration cannot break the others.
* Effects collect in one outbox; each event that is fed returns them, in order.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import lru_cache
from typing import TYPE_CHECKING, cast

from proxywasm_host.abi.bytecode import Bytecode
from proxywasm_host.abi.custom import CustomHostcall, by_name
from proxywasm_host.abi.module_limits import (
    DEFAULT_MODULE_LIMITS,
    ModuleLimits,
    bounded_tables,
    check_code,
    check_sections,
    check_size,
    is_small,
)
from proxywasm_host.abi.profile import ENVOY, Profile
from proxywasm_host.abi.types import LogLevel
from proxywasm_host.abi.values import PropertyValue, check_properties
from proxywasm_host.engine.compile_process import compile_apart
from proxywasm_host.engine.protocol import Engine, InvalidModule, Limits, Module
from proxywasm_host.engine.registry import open_engine
from proxywasm_host.errors import ModuleError
from proxywasm_host.fetch.reference import checked, is_remote, local_path
from proxywasm_host.runtime.arguments import check_arguments, profile_of
from proxywasm_host.runtime.effects import Callout, Effect, PluginEffect, Reply
from proxywasm_host.runtime.failure import FailState, PluginError, failure_of
from proxywasm_host.runtime.fast_path import BUFFER_LIMIT, HostBase
from proxywasm_host.runtime.filter_config import FilterConfig, as_bytes, of_filter
from proxywasm_host.runtime.http import HttpStream
from proxywasm_host.runtime.listener import Listener, listeners
from proxywasm_host.runtime.nginx import NginxStream
from proxywasm_host.runtime.plugin import Plugin
from proxywasm_host.runtime.properties import lookup
from proxywasm_host.runtime.tcp import TcpStream
from proxywasm_host.runtime.vm import DEFAULT_LIMITS, Vm, VmConfig
from proxywasm_host.services import GuestLog, Services
from proxywasm_host.source import read_filter

if TYPE_CHECKING:
    from proxywasm_host.engine.cache import ModuleCache
    from proxywasm_host.fetch.fetcher import ModuleFetcher

__all__ = ["Host"]

VmKey = tuple[Engine, VmConfig, tuple[tuple[str, str], ...]]


class Host(HostBase):
    """Loads plugins and makes streams.

    Args:
        engine: name of an engine, or an engine; ``None`` uses that in ``PROXYWASM_ENGINE``, else the best installed.
        profile: the behaviour to follow where hosts differ: ``"envoy"``, ``"spec"`` or ``"wasmx"``, or your own
            `Profile`.
        services: clock, log, metrics, shared data, clusters, …; in-memory defaults.
        limits: memory in bytes, including tables, and deadline in seconds for each VM. The memory also limits the bytes
            that the host keeps for a VM: those of its callouts under way, and those of its effects not taken yet.
        properties: properties that do not depend on a stream, by dotted name (``"xds.cluster_name"``). The mapping is
            read whenever a filter reads a property, so entries may be added later.
        listener: gets every callback and hostcall; `listen` changes it.
        cache: stores compiled modules.
        hostcalls: your hostcalls, in addition to those of the ABI: see `proxywasm_host.hostcalls`.
        wake: called in any thread when a shared queue gets a message for a plugin: `drain` then returns an effect.
        fetcher: fetches modules that are named by URL.
        module_limits: limits on modules, and the proposals of WebAssembly that they may use: see docs/modules.md.

    Raises: UnknownEngine, EngineUnavailable; TypeError or ValueError, for properties that no filter could read.
    """

    def __init__(
        self,
        engine: str | Engine | None = None,
        *,
        profile: str | Profile = ENVOY,
        services: Services | None = None,
        limits: Limits | None = None,
        properties: Mapping[str, PropertyValue] | None = None,
        listener: Listener | None = None,
        cache: ModuleCache | None = None,
        hostcalls: Iterable[CustomHostcall] = (),
        wake: Callable[[], None] | None = None,
        fetcher: ModuleFetcher | None = None,
        module_limits: ModuleLimits = DEFAULT_MODULE_LIMITS,
    ) -> None:
        check_arguments(
            engine=engine, services=services, limits=limits, listener=listener, cache=cache, wake=wake, profile=profile
        )
        super().__init__(Services() if services is None else services)
        self.engine = self._engine(engine)
        self.profile = profile_of(profile)
        self._stream_type = NginxStream if self.profile.nginx_phases else HttpStream
        self.limits = DEFAULT_LIMITS if limits is None else limits
        self.module_limits = module_limits
        self.properties = {} if properties is None else properties
        self._listener = listener
        self._others: list[Listener] = []
        self._cache = _shared_cache() if cache is None else cache
        self._hostcalls = by_name(hostcalls)
        self._fetcher = fetcher
        self.plugins: list[Plugin] = []
        self.wake = wake
        self._vms: dict[VmKey, Vm] = {}
        self._vms_of_streams: dict[Vm, None] = {}
        """VMs that end with their stream (`proxywasm_host.runtime.isolation`)."""
        self._read: tuple[Bytecode, ModuleLimits] | None = None
        """The last module that passed the checks; the next VM often has the same."""
        self._tried: dict[tuple[VmKey, str, bytes], PluginError | None] = {}
        """Result of each canary."""

    @staticmethod
    def _engine(engine: str | Engine | None) -> Engine:
        return open_engine(engine) if engine is None or not hasattr(engine, "compile") else cast("Engine", engine)

    # -- Plugins -------------------------------------------------------------------------------------------------

    @of_filter(FilterConfig)
    def load_plugin(self, filter: FilterConfig) -> Plugin:
        """Load, start and configure a filter. Accepts a `FilterConfig`, or the fields of one.

        Effects of the guest's start (ticks, callouts) are returned by `drain`, or by the next event.

        Raises: OSError, ModuleError, PluginError, UnknownEngine, EngineUnavailable; ValueError, LookupError or
            TypeError, for a wrong argument.
        """
        filter = self.pin(filter)
        if filter.isolation != "none" and not self.profile.nginx_phases:
            said = f"isolation {filter.isolation!r} needs the profile 'wasmx', and this host has {self.profile.name!r}"
            raise ValueError(said)
        engine, config = self._engine_for(filter), self._vm_config(filter)
        key = engine, replace(config, environment=_HASHABLE), tuple(sorted(config.environment.items()))

        def vm() -> Vm:
            return self._vm(key, config, filter.plugin_name)

        shared = self._vms.get(key)
        if shared is not None and shared.failure is None and len(shared.contexts) > 1:
            self._try(key, config, filter)
        plugin = Plugin(self, filter, vm, vm())
        self.plugins.append(plugin)
        if not isinstance(filter.code, bytes) and is_remote(filter.code):
            self.fetcher.loaded(filter.code, filter.sha256)
        return plugin

    def pin(self, filter: FilterConfig) -> FilterConfig:
        """The filter with the digest of the module that its URL names now. Fetches the module if it is not cached.

        May be called in any thread, and waits for a server. A filter that is a file, or bytes, is returned unchanged.

        Raises: ModuleError.
        """
        if isinstance(filter.code, bytes) or not is_remote(filter.code):
            return filter
        digest = self.fetcher.pin(filter.code, filter.sha256, filter.pull_policy, self._module_limits(filter).size)
        return replace(filter, sha256=digest)

    @property
    def fetcher(self) -> ModuleFetcher:
        """Fetches modules that are named by URL."""
        if self._fetcher is None:
            from proxywasm_host.fetch.fetcher import default_fetcher  # noqa: PLC0415 - only for modules with a URL

            self._fetcher = default_fetcher()
        return self._fetcher

    def _module_limits(self, filter: FilterConfig) -> ModuleLimits:
        return self.module_limits if filter.module_limits is None else filter.module_limits

    def compile(self, filter: FilterConfig) -> None:
        """Compile a filter, so that `load_plugin` finds it in the cache. May be called in any thread.

        Raises: OSError, ModuleError, UnknownEngine, EngineUnavailable; ValueError, LookupError or TypeError, likewise.
        """
        _, compile = self._looked_at(self._engine_for(filter), self._vm_config(filter))
        compile()

    def _engine_for(self, filter: FilterConfig) -> Engine:
        check_arguments(engine=filter.engine)
        return self.engine if filter.engine is None else self._engine(filter.engine)

    def _vm_config(self, filter: FilterConfig) -> VmConfig:
        """The configuration of a filter's VM, from the filter's options and the host's. Raises: OSError."""
        module_limits, code, digest = self._module_limits(filter), filter.code, filter.sha256
        if not isinstance(code, bytes) and is_remote(code):
            code = self.fetcher.read(code, digest, filter.pull_policy, module_limits.size)
        else:
            code = checked(
                code if isinstance(code, bytes) else read_filter(local_path(code), module_limits.size), digest
            )
        return VmConfig(
            code,
            filter.vm_id,
            as_bytes(filter.vm_configuration),
            dict(filter.environment or {}),
            None if filter.capabilities is None else frozenset(filter.capabilities),
            filter.unknown_imports,
            self.profile if filter.profile is None else profile_of(filter.profile),
            self.limits if filter.limits is None else filter.limits,
            module_limits,
            tuple((self._hostcalls if filter.hostcalls is None else by_name(filter.hostcalls)).values()),
        )

    def _vm(self, key: VmKey, config: VmConfig, name: str) -> Vm:
        vm = self._vms.get(key)
        if vm is None or vm.failure is not None:
            vm = self._vms[key] = self._new_vm(key, config, name, listeners(self._listener, *self._others))
        return vm

    def _checked(self, code: bytes, limits: ModuleLimits) -> Bytecode:
        """A module, after a check of its size and sections. Raises: ModuleError."""
        read = self._read
        if read is None or read[1] != limits or read[0].data != code:
            check_size(code, limits)
            bytecode = Bytecode(code)
            check_sections(bytecode, limits)
            self._read = read = bytecode, limits
        return read[0]

    def _looked_at(self, engine: Engine, config: VmConfig) -> tuple[Bytecode, Callable[[], Module]]:
        """A module within limits, and a function that compiles it. Both raise: ModuleError."""
        limits = config.module_limits
        bytecode = self._checked(config.code, limits)

        def compile_module() -> Module:
            code = check_code(bytecode, limits)
            ready = bounded_tables(bytecode, code)
            compile_early = getattr(engine, "compile_early", None)
            if compile_early is not None and code is not None:
                # With proposals that not all engines have, the engine reads the module itself.
                known = ready is bytecode.data and code.stopped < 0 and not limits.proposals
                return cast("Module", compile_early(ready, code.slow, code.ranges if known else None))
            if is_small(bytecode, code):
                return engine.compile(ready)
            return compile_apart(engine, ready, limits.compile_seconds, limits.compile_memory)

        def compile() -> Module:
            try:
                return self._cache.load(engine, config.code, compile_module, limits.fingerprint)
            except InvalidModule as error:
                raise ModuleError(f"{engine.name} cannot compile the module: {error}") from None

        return bytecode, compile

    def _new_vm(
        self, key: VmKey, config: VmConfig, name: str, listener: Listener | None, services: Services | None = None
    ) -> Vm:
        bytecode, compile = self._looked_at(key[0], config)
        given = self.services if services is None else services
        return Vm(config, bytecode, compile, given, self._outbox, listener, name)

    def _another(self, vm: Vm, name: str) -> Vm:
        """Another instance of a VM's module, for one stream. Raises: PluginError."""
        seen_by = listeners(self._listener, *self._others)
        try:
            made = Vm(vm.config, vm.bytecode, lambda: vm.module, self.services, self._outbox, seen_by, name)
        except ModuleError as error:  # the module is valid, so there is no address space for another instance
            raise PluginError(failure_of(FailState.INITIALIZE, name, "the instance", str(error))) from error
        self._vms_of_streams[made] = None
        return made

    def _end(self, vm: Vm) -> None:
        """Free a VM whose stream has ended."""
        if vm in self._vms_of_streams:
            del self._vms_of_streams[vm]
            vm.close()

    def _try(self, key: VmKey, config: VmConfig, filter: FilterConfig) -> None:
        """Try the plugin in a separate VM, once for each plugin (``canary`` in ``wasm.cc``). Raises: PluginError."""
        tried = key, filter.root_id, as_bytes(filter.configuration)
        if tried not in self._tried:
            vm = self._new_vm(key, config, filter.plugin_name, None, replace(self.services, log=_Silent()))
            try:
                tried_out = Plugin(self, filter, lambda: vm, vm)
                tried_out._root.drop()
                self._forget(tried_out)
                self._tried[tried] = None
            except PluginError as error:
                self._tried[tried] = error
            finally:
                vm.close()
        refused = self._tried[tried]
        if refused is not None:
            raise refused

    def _forget(self, plugin: Plugin) -> None:
        """Drop the effects of a refused plugin, which the embedder has never got."""
        for effect in self.drain():
            if not (isinstance(effect, PluginEffect) and effect.plugin is plugin):
                self._emit(effect)

    def renew(self) -> None:
        """Give plugins that are loaded from now on new VMs; running plugins keep theirs."""
        self._vms = {}

    def _all_vms(self) -> list[Vm]:
        return list(
            dict.fromkeys([*self._vms.values(), *(plugin._vm for plugin in self.plugins), *self._vms_of_streams])
        )

    def _plugin_gone(self, plugin: Plugin) -> None:
        """Remove a closed plugin whose guest has finished. Its VM ends with its last plugin."""
        if plugin in self.plugins:
            self.plugins.remove(plugin)
        if not any(other._vm is plugin._vm for other in self.plugins):
            for key in [key for key, vm in self._vms.items() if vm is plugin._vm]:
                del self._vms[key]
            plugin._vm.close()

    def _vm_left(self, vm: Vm) -> None:
        """Close a VM that failed or refused a plugin, which has left it, unless other plugins are in the VM."""
        if not any(plugin._vm is vm for plugin in self.plugins):
            vm.close()

    # -- Streams -------------------------------------------------------------------------------------------------

    def tcp_stream(
        self,
        plugins: Sequence[Plugin],
        *,
        properties: Mapping[str, PropertyValue] | None = None,
        buffer_limit: int = BUFFER_LIMIT,
    ) -> TcpStream:
        """Make a TCP stream through these plugins, in the order of downstream's data.

        `properties` and `buffer_limit` are those of `http_stream`.
        """
        given = {} if properties is None else properties
        check_properties(given)
        check_arguments(buffer_limit=buffer_limit)
        return TcpStream(self, self._ready(plugins), given, buffer_limit)

    def _ready(self, plugins: Sequence[Plugin]) -> list[Plugin]:
        """The plugins that a new stream passes.

        Raises: RuntimeError, if one was closed; TypeError, if one is not a plugin; ValueError, if it is another host's.
        """
        try:
            strange = [plugin for plugin in plugins if plugin.host is not self]
            fit = not any(plugin.closed or plugin._vm.failure is not None for plugin in plugins)
        except (AttributeError, TypeError):
            raise _no_plugins(plugins) from None
        if strange:
            raise ValueError(f"{strange[0]!r} is another host's: load it into this one, with host.load_plugin(…)")
        return list(plugins) if fit else [plugin for plugin in plugins if plugin._ready()]

    # -- Effects -------------------------------------------------------------------------------------------------

    def _notify(self, effect: Effect) -> None:
        """As `_emit`, but from any thread and at any time; calls `wake`."""
        self._outbox.notify(effect)
        if self.wake is not None:
            with suppress(Exception):  # the guest must not fail because of a closed event loop
                self.wake()

    def deliver(self, callout: Callout, reply: Reply) -> list[Effect]:
        """Pass a guest the reply to its callout. Returns effects, to be performed after the current ones.

        The reply is dropped if the guest has failed or has cancelled the callout.

        Raises: TypeError, if the callout cannot have such a reply, or the reply has wrong fields (text instead of
            bytes, …); the guest then still waits. RuntimeError, if the callout has its reply already (a `GrpcStream`
            may have any number).
        """
        if not isinstance(callout, Callout):
            raise TypeError(f"deliver accepts a callout (HttpCall, …) and then its reply, not {callout!r}")
        callout.plugin._root.deliver(callout, reply)
        return self.drain()

    # -- Others --------------------------------------------------------------------------------------------------

    @property
    def properties(self) -> Mapping[str, PropertyValue]:
        """Properties that filters can read in every stream. May be set. Raises: TypeError or ValueError."""
        return self._properties

    @properties.setter
    def properties(self, properties: Mapping[str, PropertyValue]) -> None:
        check_properties(properties)
        self._properties = properties

    def _get_property(self, path: Sequence[str]) -> PropertyValue:
        """A property of the host. Raises: LookupError."""
        return lookup(self.properties, path)

    def use(self, services: Services) -> None:
        """Replace the services of all guests. Not to be called while a guest runs."""
        check_arguments(services=services)
        self.services = services
        for vm in self._all_vms():
            vm.services = services

    def listen(self, listener: Listener | None) -> None:
        """Report every callback and hostcall to `listener`, which replaces the previous one; ``None`` reports nothing.

        Without a listener it costs nothing. Not to be called by a listener.
        """
        check_arguments(listener=listener)
        self._listener = listener
        self._listen()

    def add_listener(self, listener: Listener) -> None:
        """Report every callback and hostcall to this listener too, until `remove_listener`."""
        check_arguments(listener=listener)
        self._others.append(listener)
        self._listen()

    def remove_listener(self, listener: Listener) -> None:
        """Stop reporting to a listener that was added. Raises: ValueError, if it was not."""
        self._others.remove(listener)
        self._listen()

    def _listen(self) -> None:
        all = listeners(self._listener, *self._others)
        for vm in self._all_vms():
            vm.listen(all)

    def close(self) -> list[Effect]:
        """End all plugins and free their VMs, even of plugins that wait for ``proxy_done``."""
        effects = [effect for plugin in list(self.plugins) for effect in plugin.close()]
        for plugin in list(self.plugins):
            plugin._root.drop()
        effects += self.drain()
        for vm in (*self._vms.values(), *self._vms_of_streams):
            vm.close()
        self._vms.clear()
        self._vms_of_streams.clear()
        self.plugins.clear()
        self._read = None
        return effects

    def __enter__(self) -> Host:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        names = ", ".join(repr(plugin.name) for plugin in self.plugins) or "no plugin"
        return f"<Host on {self.engine.name} {self.engine.version} with {names}>"


class _Silent:
    """Drops the log of a canary, because the plugin itself will log the same lines, or the error has the reason."""

    level: int = LogLevel.CRITICAL

    def log(self, line: GuestLog) -> None:
        """Drop the line."""


class _NoEnvironment(dict[str, str]):
    """Replaces the environment in the key of a VM, which has it as sorted pairs."""

    def __hash__(self) -> int:  # type: ignore[override]
        return 0


_HASHABLE = _NoEnvironment()


@lru_cache(None)
def _shared_cache() -> ModuleCache:
    """The cache of all hosts of this process that were made without one."""
    from proxywasm_host.engine.cache import ModuleCache, default_directory  # noqa: PLC0415 - not before an engine

    return ModuleCache(default_directory())


def _no_plugins(plugins: object) -> TypeError:
    """The error for a value that is not a list of plugins."""
    if isinstance(plugins, Plugin):
        return TypeError(f"plugins are a list: write [plugin], not {plugins!r}")
    if isinstance(plugins, (str, bytes)) or not isinstance(plugins, Iterable):
        return TypeError(f"plugins are a list of what Host.load_plugin returned, not {plugins!r}")
    wrong = next((plugin for plugin in plugins if not isinstance(plugin, Plugin)), plugins)
    return TypeError(f"a plugin is what Host.load_plugin returned, not {wrong!r}: write [host.load_plugin({wrong!r})]")
