"""The addon: its options, and mitmproxy's events on their way to filters."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

from mitmproxy import ctx, exceptions, http, tcp

from proxywasm_host.driver.clusters import Clusters
from proxywasm_host.driver.filters import Filter
from proxywasm_host.driver.worker import Worker
from proxywasm_host.errors import ProxyWasmError
from proxywasm_host.integrations.event_loops import EventLoopCarrier
from proxywasm_host.integrations.mitmproxy.connection import Connection
from proxywasm_host.integrations.mitmproxy.conversation import Conversation, addressed_by, properties

__all__ = ["ProxyWasm"]

logger = logging.getLogger("proxywasm_host.mitmproxy")


class Filters(EventLoopCarrier):
    """Where the filters run."""

    logger = logger
    behind = (lambda app: app is None, "told by mitmproxy")


class ProxyWasm:
    """An addon of mitmproxy."""

    def __init__(self) -> None:
        self._filters: Filters | None = None
        self._conversations: dict[str, Conversation] = {}
        self._connections: dict[str, Connection] = {}

    # -- Options -------------------------------------------------------------------------------------------------

    def load(self, loader: Any) -> None:
        """The options."""
        loader.add_option(
            "proxywasm_filters", Sequence[str], [], "Proxy-Wasm filters: modules, in the order of the request."
        )
        loader.add_option(
            "proxywasm_configuration", Sequence[str], [], "What they are configured with: text or @FILE for each."
        )
        loader.add_option("proxywasm_clusters", Sequence[str], [], "Servers that filters may call: NAME=URL.")
        loader.add_option(
            "proxywasm_stream", bool, False, "Let bodies pass part by part, where filters let heads go first."
        )

    def configure(self, updated: set[str]) -> None:
        """Take the options. Raises: OptionsError."""
        if self._filters is not None and updated.isdisjoint(
            ("proxywasm_filters", "proxywasm_configuration", "proxywasm_clusters")
        ):
            return
        try:
            clusters = Clusters(dict(pair(given) for given in ctx.options.proxywasm_clusters), any_host=True)
            self._filters = Filters(None, chain(), clusters=clusters)
        except (TypeError, ValueError, ProxyWasmError) as error:
            raise exceptions.OptionsError(f"proxywasm: {error}") from None

    async def running(self) -> None:
        """Load the filters; what is wrong with them ends mitmproxy, as an option that is wrong does."""
        try:
            await self._worker()
        except (OSError, ProxyWasmError) as error:
            logger.error("%s", error)  # noqa: TRY400 - the sentence says it all
            ctx.master.shutdown()

    async def _worker(self) -> Worker:
        assert self._filters is not None  # noqa: S101 - `configure` comes first
        return await self._filters._worker()

    # -- HTTP ----------------------------------------------------------------------------------------------------

    async def requestheaders(self, flow: http.HTTPFlow) -> None:
        """The head of a request, whose body will be streamed if filters let it go first."""
        if ctx.options.proxywasm_stream and flow.response is None:
            conversation = await self._begin(flow)
            conversation.stream_request()

    async def request(self, flow: http.HTTPFlow) -> None:
        """A request, whole or streamed."""
        if flow.response is None:  # else another addon has answered
            conversation = self._conversations.get(flow.id) or await self._begin(flow)
            await conversation.request()

    def responseheaders(self, flow: http.HTTPFlow) -> None:
        """The head of a response, whose body will be streamed if filters let it go first."""
        conversation = self._conversations.get(flow.id)
        if conversation is not None and ctx.options.proxywasm_stream:
            conversation.stream_response()

    async def response(self, flow: http.HTTPFlow) -> None:
        """A response, whole or streamed."""
        conversation = self._conversations.pop(flow.id, None)
        if conversation is not None:
            await conversation.response()

    def error(self, flow: http.HTTPFlow) -> None:
        """A flow that ends otherwise."""
        conversation = self._conversations.pop(flow.id, None)
        if conversation is not None:
            conversation.broken_off()

    async def _begin(self, flow: http.HTTPFlow) -> Conversation:
        worker = await self._worker()
        assert self._filters is not None  # noqa: S101 - there is its worker
        stream = self._filters._stream(worker, properties(flow), lambda: addressed_by(flow.request))
        conversation = self._conversations[flow.id] = Conversation(flow, worker.driver, stream)
        return conversation

    # -- TCP -----------------------------------------------------------------------------------------------------

    async def tcp_start(self, flow: tcp.TCPFlow) -> None:
        """A connection of another protocol."""
        worker = await self._worker()
        stream = worker.host.tcp_stream(worker.plugins, properties=properties(flow))
        self._connections[flow.id] = Connection(flow, worker.driver, stream)

    def tcp_message(self, flow: tcp.TCPFlow) -> None:
        """Data of either side."""
        self._connections[flow.id].message()

    def tcp_end(self, flow: tcp.TCPFlow) -> None:
        """The connection has ended."""
        connection = self._connections.pop(flow.id, None)
        if connection is not None:
            connection.close()

    tcp_error = tcp_end


def chain() -> list[Filter]:
    """The filters that the options describe. Raises: ValueError."""
    modules, given = ctx.options.proxywasm_filters, ctx.options.proxywasm_configuration
    if len(given) > len(modules):
        raise ValueError(f"{len(given)} configurations are given, and {len(modules)} filters")
    configurations = [*map(text, given), *[b""] * (len(modules) - len(given))]
    return [Filter(module, configuration=each) for module, each in zip(modules, configurations, strict=True)]


def text(given: str) -> bytes:
    """A configuration, or with @ the file that has it."""
    if not given.startswith("@"):
        return given.encode()
    try:
        with open(given[1:], "rb") as file:
            return file.read()
    except OSError as error:
        raise ValueError(f"cannot read {given[1:]}: {error.strerror}") from None


def pair(given: str) -> tuple[str, str]:
    """A cluster. Raises: ValueError."""
    name, equals, url = given.partition("=")
    if not equals:
        raise ValueError(f"{given!r} is not a cluster: write it as NAME=URL")
    return name, url
