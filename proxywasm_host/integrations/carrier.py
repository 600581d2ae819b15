"""The base of carriers in programs (middlewares, transports): their arguments, and the hosts that they make."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import Any, ClassVar, Union

from proxywasm_host.abi.profile import ENVOY, Profile
from proxywasm_host.abi.values import PropertyValue
from proxywasm_host.driver import filters as filter_list
from proxywasm_host.driver.clusters import Cluster, Clusters
from proxywasm_host.driver.defaults import LIMITS, STREAM_IDLE_TIMEOUT
from proxywasm_host.driver.dispatch import CALLOUTS
from proxywasm_host.driver.filters import AnyFilter
from proxywasm_host.driver.health import FilterHealth, FilterStatus, OnFailure
from proxywasm_host.driver.recycle import Recycle
from proxywasm_host.engine.protocol import Engine, Limits
from proxywasm_host.fetch.fetcher import ModuleFetcher
from proxywasm_host.integrations.properties import of_this_node
from proxywasm_host.recording.record import Record
from proxywasm_host.runtime.arguments import check_arguments
from proxywasm_host.runtime.effects import Callout
from proxywasm_host.runtime.fast_path import BUFFER_LIMIT
from proxywasm_host.runtime.header_limits import HeaderLimits
from proxywasm_host.runtime.host import Host
from proxywasm_host.runtime.listener import Listener
from proxywasm_host.services import Metrics, Services
from proxywasm_host.services.shared import open_shared, with_shared

__all__ = ["Carrier"]

Properties = Union[Mapping[str, PropertyValue], Callable[[Any], Mapping[str, PropertyValue]]]


class Carrier:
    """Base of all carriers in programs.

    Args:
        app: the application behind the filters, or the object that sends a program's calls.
        filters: the chain, in the order of the request: paths, modules, or `Filter`s with their configuration.
        clusters: the servers of callouts, by name: `Clusters`, or a mapping of names to URLs.
        properties: properties of all streams, or a function that makes a request's properties from its scope (or
            environ).
        buffer_limit: bytes of a body that filters may hold back.
        header_limits: number and size of the headers that a client or the application may send. Beyond them, a message
            is answered 431 or 502, and no filter sees it. ``None`` for no limit.
        stream_idle_timeout: seconds without progress (nothing received from the client or the application, nothing
            out of the filters) after which a request is answered 408 or 504, or its response broken off. ``None``
            for no limit.
        fix_content_length: correct or remove a ``content-length`` that filters may have invalidated.
        clients: functions that make callouts, by the effect's type; see `AsyncDriver` and `ThreadDriver`.
        limits: memory and deadline of each guest; ``Limits()`` for none.
        record: which requests to record, and where: ``Record("recordings", sample=100)``; ``None`` for none.
        recycle: when filters get new VMs: ``Recycle(memory=64 << 20)``; requests in progress end on the old ones.
            ``None``: only when a guest fails.
        shared: which processes share data, queues and metrics of filters: ``"memory"``, ``"processes"`` or
            ``"redis://…"``; see `proxywasm_host.services.shared`. It replaces those of `services`.
        fetcher: fetches modules that are named by URL, and looks for newer ones.
        on_failure: called for each failure of a guest, with the plugin and its `Failure`. The log reports it too.
        services, engine, profile, listener: those of the hosts that the carrier makes. All hosts share the services.

    Raises: TypeError or ValueError, whose message says what to write instead.
    """

    logger: ClassVar[logging.Logger]
    behind: ClassVar[tuple[Callable[[Any], bool], str]] = (
        callable,
        "an application, which comes first: ProxyWasmMiddleware(app, ['auth.wasm'])",
    )
    """A check of `app`, and the description of a valid one for errors."""

    def __init__(
        self,
        app: Any,
        filters: Iterable[AnyFilter],
        *,
        clusters: Mapping[str, Cluster | str] | None = None,
        properties: Properties | None = None,
        buffer_limit: int = BUFFER_LIMIT,
        header_limits: HeaderLimits | None = HeaderLimits(),  # noqa: B008 - a value
        stream_idle_timeout: float | None = STREAM_IDLE_TIMEOUT,
        fix_content_length: bool = True,
        clients: Mapping[type[Callout], Any] | None = None,
        services: Services | None = None,
        engine: str | Engine | None = None,
        profile: str | Profile = ENVOY,
        limits: Limits | None = LIMITS,
        record: Record | None = None,
        recycle: Recycle | None = None,
        shared: str | None = None,
        on_failure: OnFailure = None,
        fetcher: ModuleFetcher | None = None,
        listener: Listener | None = None,
    ) -> None:
        fits, wanted = type(self).behind
        check("app", app, fits(app), wanted)
        right = properties is None or callable(properties) or isinstance(properties, Mapping)
        check("properties", properties, right, "a mapping by name, or a function that makes one of a request")
        of_all = {} if properties is None or callable(properties) else properties
        check("buffer_limit", buffer_limit, is_number(buffer_limit, int), "a number of bytes: 1 << 20")
        right = header_limits is None or isinstance(header_limits, HeaderLimits)
        check("header_limits", header_limits, right, "HeaderLimits(count=100, size=60 * 1024)")
        right = stream_idle_timeout is None or (is_number(stream_idle_timeout, int, float) and stream_idle_timeout > 0)
        check("stream_idle_timeout", stream_idle_timeout, right, "a number of seconds: 300.0")
        right = clients is None or all(kind in CALLOUTS and callable(client) for kind, client in clients.items())
        check("clients", clients, right, "functions by the type of callout: {RedisCall: my_client}")
        check("services", services, services is None or isinstance(services, Services), "a Services(…)")
        right = fetcher is None or isinstance(fetcher, ModuleFetcher)
        check("fetcher", fetcher, right, "a ModuleFetcher(ca='ca.pem')")
        check("limits", limits, limits is None or isinstance(limits, Limits), "Limits(memory=256 << 20, deadline=5.0)")
        check("record", record, record is None or isinstance(record, Record), "a Record('recordings')")
        check("recycle", recycle, recycle is None or isinstance(recycle, Recycle), "a Recycle(memory=64 << 20)")
        check_arguments(profile=profile, listener=listener)
        right = on_failure is None or callable(on_failure)
        check("on_failure", on_failure, right, "a function of a plugin and a failure")
        self.app = app
        self.filters: list[AnyFilter] = [*filter_list.chain(filters)]
        services = with_clusters(Services() if services is None else services, clusters)
        if shared is not None:
            services = with_shared(services, open_shared(shared))
        self._metrics = services.metrics
        fixed = of_this_node(of_all)
        self._make_host: Callable[[], Host] = lambda: Host(
            engine,
            profile=profile,
            services=services,
            limits=limits,
            properties=fixed,
            listener=listener,
            fetcher=fetcher,
        )
        self._clients = clients
        self._properties_of: Callable[[Any], Mapping[str, PropertyValue]]
        self._properties_of = properties if callable(properties) else lambda _: of_all
        self._buffer_limit = buffer_limit
        self._header_limits = header_limits
        self._stream_idle_timeout = stream_idle_timeout
        self._fix_content_length = fix_content_length
        self._record = record
        self._recycle = recycle
        self._on_failure = on_failure
        self._set_up()

    @property
    def metrics(self) -> Metrics:
        """Metrics of the filters; `proxywasm_host.integrations.prometheus` shows them."""
        return self._metrics

    def _set_up(self) -> None:
        """Add the state of this kind of carrier."""
        raise NotImplementedError

    def status(self) -> list[FilterStatus]:
        """The state of each filter, in each event loop or process that runs it here. May be called in any thread.

        Ready to serve: ``all(each.state in ("running", "bypassed") for each in middleware.status())``.
        """
        healths = self._filter_healths()
        if healths:
            return [health.status() for health in healths]
        return [FilterStatus(each.plugin_name, "loading") for each in filter_list.chain(self.filters)]

    def _filter_healths(self) -> list[FilterHealth]:
        """The health of all plugins that new requests get."""
        raise NotImplementedError


def check(name: str, value: object, right: bool, wanted: str) -> None:
    """Raise TypeError unless the value is right."""
    if not right:
        raise TypeError(f"{name} must be {wanted}; not {value!r}")


def is_number(value: object, *kinds: type) -> bool:
    """Whether a value is a number of one of these types, and not negative."""
    return isinstance(value, kinds) and not isinstance(value, bool) and value >= 0  # type: ignore[operator]


def with_clusters(services: Services, clusters: Mapping[str, Cluster | str] | None) -> Services:
    """The services, with these clusters.

    Raises: TypeError; ValueError, for an invalid URL, or for clusters of the services that are missing here.
    """
    known = services.clusters
    if clusters is None:
        return (
            replace(services, clusters=Clusters()) if known == frozenset() else services
        )  # which reports a missing cluster
    right = isinstance(clusters, Mapping)
    check("clusters", clusters, right, "a mapping of names to URLs: {'idp': 'https://idp.example'}")
    clusters = clusters if isinstance(clusters, Clusters) else Clusters(clusters)
    unknown = [name for name in known if clusters.get(name) is None] if isinstance(known, Iterable) else []
    if unknown:
        raise ValueError(
            f"Services(clusters=…) has {', '.join(map(repr, unknown))}, for which clusters= has no URL: "
            "give all clusters in one place, clusters={name: URL}"
        )
    return replace(services, clusters=clusters)
