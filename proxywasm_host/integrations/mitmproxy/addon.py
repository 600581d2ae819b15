"""The addon: its options, and the handlers that pass mitmproxy's events to filters."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

from mitmproxy import ctx, exceptions, http, tcp

from proxywasm_host.driver.clusters import Clusters
from proxywasm_host.driver.filters import Filter
from proxywasm_host.errors import ProxyWasmError
from proxywasm_host.integrations.event_loops import EventLoopCarrier
from proxywasm_host.integrations.mitmproxy.connection import Connection
from proxywasm_host.integrations.mitmproxy.conversation import Conversation
from proxywasm_host.integrations.mitmproxy.flow_data import addressed_by, properties

__all__ = ["ProxyWasm"]

logger = logging.getLogger("proxywasm_host.mitmproxy")
LOADED = [
    f"proxywasm_{what}" for what in ("filters", "configuration", "network_filters", "network_configuration", "clusters")
]
"""Options that reload the filters when they change."""


class Filters(EventLoopCarrier):
    """The carrier that runs the filters."""

    logger = logger
    behind = (lambda app: app is None, "told by mitmproxy")


class ProxyWasm:
    """An addon of mitmproxy."""

    def __init__(self) -> None:
        self._http: Filters | None = None
        self._network: Filters | None = None
        self._conversations: dict[str, Conversation] = {}
        self._connections: dict[str, Connection] = {}

    # -- Options -------------------------------------------------------------------------------------------------

    def load(self, loader: Any) -> None:
        """Declare the options."""
        loader.add_option(
            "proxywasm_filters", Sequence[str], [], "Proxy-Wasm filters: modules, in the order of the request."
        )
        loader.add_option(
            "proxywasm_configuration", Sequence[str], [], "Their configurations: text or @FILE for each filter."
        )
        loader.add_option(
            "proxywasm_network_filters", Sequence[str], [], "Network filters, for TCP connections: modules, in order."
        )
        loader.add_option("proxywasm_network_configuration", Sequence[str], [], "Configurations of network filters.")
        loader.add_option("proxywasm_clusters", Sequence[str], [], "Servers that filters may call: NAME=URL.")
        loader.add_option(
            "proxywasm_stream", bool, False, "Stream a body part by part, if filters release its head first."
        )

    def configure(self, updated: set[str]) -> None:
        """Apply the options. Raises: OptionsError."""
        options = ctx.options
        if self._http is not None and updated.isdisjoint(LOADED):
            return
        try:
            clusters = Clusters(dict(pair(given) for given in options.proxywasm_clusters), any_host=True)
            http_chain = chain(options.proxywasm_filters, options.proxywasm_configuration)
            network_chain = chain(options.proxywasm_network_filters, options.proxywasm_network_configuration)
            self._http = Filters(None, http_chain, clusters=clusters)
            self._network = Filters(None, network_chain, clusters=clusters) if network_chain else None
        except (TypeError, ValueError, ProxyWasmError) as error:
            raise exceptions.OptionsError(f"proxywasm: {error}") from None

    async def running(self) -> None:
        """Load the filters; a filter that cannot be loaded ends mitmproxy, as a wrong option does."""
        try:
            for filters in (self._http, self._network):
                if filters is not None:
                    await filters._worker()
        except (OSError, ProxyWasmError) as error:
            logger.error("%s", error)  # noqa: TRY400 - the sentence says it all
            ctx.master.shutdown()

    # -- HTTP ----------------------------------------------------------------------------------------------------

    async def requestheaders(self, flow: http.HTTPFlow) -> None:
        """Carry the head of a request. Its body is streamed if filters release the head at once."""
        if ctx.options.proxywasm_stream and flow.response is None:
            conversation = await self._begin(flow)
            conversation.stream_request()

    async def request(self, flow: http.HTTPFlow) -> None:
        """Carry a request, whole or streamed."""
        if flow.response is None:  # else another addon has answered
            conversation = self._conversations.get(flow.id) or await self._begin(flow)
            await conversation.request()

    def responseheaders(self, flow: http.HTTPFlow) -> None:
        """Carry the head of a response. Its body is streamed if filters release the head at once."""
        conversation = self._conversations.get(flow.id)
        if conversation is not None and ctx.options.proxywasm_stream:
            conversation.stream_response()

    async def response(self, flow: http.HTTPFlow) -> None:
        """Carry a response, whole or streamed."""
        conversation = self._conversations.pop(flow.id, None)
        if conversation is not None:
            await conversation.response()

    def error(self, flow: http.HTTPFlow) -> None:
        """Handle a flow that breaks off."""
        conversation = self._conversations.pop(flow.id, None)
        if conversation is not None:
            conversation.broken_off()

    async def _begin(self, flow: http.HTTPFlow) -> Conversation:
        filters = self._http
        assert filters is not None  # noqa: S101 - `configure` comes first
        worker = await filters._worker()
        stream = filters._stream(worker, properties(flow), addressed_by, flow.request)
        conversation = self._conversations[flow.id] = Conversation(flow, worker.driver, stream)
        return conversation

    # -- TCP -----------------------------------------------------------------------------------------------------

    async def tcp_start(self, flow: tcp.TCPFlow) -> None:
        """Begin a connection of another protocol."""
        if self._network is None:
            return
        worker = await self._network._worker()
        stream = worker.host.tcp_stream(worker.plugins, properties=properties(flow))
        self._connections[flow.id] = Connection(flow, worker.driver, stream)

    def tcp_message(self, flow: tcp.TCPFlow) -> None:
        """Carry data from either side."""
        connection = self._connections.get(flow.id)
        if connection is not None:
            connection.message()

    def tcp_end(self, flow: tcp.TCPFlow) -> None:
        """End a connection."""
        connection = self._connections.pop(flow.id, None)
        if connection is not None:
            connection.close()

    tcp_error = tcp_end


def chain(modules: Sequence[str], given: Sequence[str]) -> list[Filter]:
    """The filters that two options describe. Raises: ValueError."""
    if len(given) > len(modules):
        raise ValueError(f"{len(given)} configurations are given for {len(modules)} filters")
    configurations = [*map(text, given), *[b""] * (len(modules) - len(given))]
    return [Filter(module, configuration=each) for module, each in zip(modules, configurations, strict=True)]


def text(given: str) -> bytes:
    """A configuration: the text itself, or with @ the content of a file. Raises: ValueError."""
    if not given.startswith("@"):
        return given.encode()
    try:
        with open(given[1:], "rb") as file:
            return file.read()
    except OSError as error:
        raise ValueError(f"cannot read {given[1:]}: {error.strerror}") from None


def pair(given: str) -> tuple[str, str]:
    """The name and URL of a cluster. Raises: ValueError."""
    name, equals, url = given.partition("=")
    if not equals:
        raise ValueError(f"{given!r} is not a cluster: write it as NAME=URL")
    return name, url
