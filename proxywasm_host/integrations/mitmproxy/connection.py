"""Carries a TCP connection through filters, one of mitmproxy's messages at a time."""

from __future__ import annotations

from mitmproxy import ctx, tcp

from proxywasm_host.driver.asynchronous import AsyncDriver
from proxywasm_host.runtime.effects import CloseConnection, DownstreamData, Effect, UpstreamData
from proxywasm_host.runtime.tcp import TcpStream

__all__ = ["Connection"]


class Connection:
    """A connection in progress."""

    def __init__(self, flow: tcp.TCPFlow, driver: AsyncDriver, stream: TcpStream) -> None:
        self._flow = flow
        self._driver = driver
        self._stream = stream
        self._message: tcp.TCPMessage | None = None
        """The message that is passing the filters. Data that comes out in its direction becomes its content."""
        self._out = b""
        self._injected: list[tuple[bool, bytes]] = []
        driver.attach(stream, self._take)
        driver.perform(stream.new_connection())

    def message(self) -> None:
        """Pass a message through the filters, and replace its content by the result."""
        message = self._flow.messages[-1]
        if (message.from_client, message.content) in self._injected:  # by `_take`
            self._injected.remove((message.from_client, message.content))
            return
        self._message, self._out = message, b""
        feed = self._stream.downstream_data if message.from_client else self._stream.upstream_data
        self._driver.perform(feed(message.content))
        message.content, self._message = self._out, None

    def _take(self, effect: Effect) -> None:
        if isinstance(effect, CloseConnection):
            self._flow.kill()
        elif isinstance(effect, (DownstreamData, UpstreamData)) and effect.data:
            from_client = isinstance(effect, DownstreamData)
            if self._message is not None and self._message.from_client is from_client:
                self._out += effect.data
            else:
                self._injected.append((from_client, effect.data))
                ctx.master.commands.call("inject.tcp", self._flow, not from_client, effect.data)

    def close(self) -> None:
        """End the connection's stream."""
        self._driver.detach(self._stream)
        self._driver.perform(self._stream.close())
