"""What plugins ask for is performed in an event loop: datagrams."""

from __future__ import annotations

import pytest

from proxywasm_host.driver.clusters import Clusters
from proxywasm_host.kong.client import AsyncPluginClient
from proxywasm_host.kong.plugin import Close, Connect, Receive, Send
from proxywasm_host.kong.task import Answer, PluginCallout
from proxywasm_host.runtime.effects import CalloutFailed
from tests.kong.conftest import datagrams_answered

pytestmark = pytest.mark.anyio


async def test_datagrams():
    client = AsyncPluginClient(Clusters({}))

    async def perform(effect):
        reply = await client(PluginCallout(None, 1, effect))
        return reply.value if isinstance(reply, Answer) else reply

    with datagrams_answered() as port:
        connection = await perform(Connect("127.0.0.1", port, datagrams=True))
        await perform(Send(connection, b"abc"))
        assert await perform(Receive(connection, 2)) == b"cb"  # what is beyond is lost, as with recv(2)
        assert await perform(Receive(connection, 2, 0.05)) == CalloutFailed("timeout")
        assert await perform(Close(connection)) is None
    await client.aclose()
