"""The guest's side of a gRPC stream, for a client: the messages to send, and a way to deliver replies.

Messages of a guest wait here until the client takes them. When `tell` returns, the guest has the reply. A client that
reads the next message only then lets HTTP/2's flow control slow down the server.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

from proxywasm_host.runtime.effects import GrpcStream, Reply

__all__ = ["MAX_UNSENT", "AsyncConversation", "Conversation", "ThreadConversation"]

MAX_UNSENT = 16 << 20
"""Maximum bytes of messages that wait on one stream. Guests cannot wait, so more ends the stream."""
Deliver = Callable[[GrpcStream, Reply, Callable[[], None]], None]
"""Delivers a reply to the guest, and then calls the function. Called in the thread of the client."""


class Conversation:
    """The messages that a guest sends on a gRPC stream, until the client takes them.

    In a thread, ``for message in conversation`` waits for them.
    """

    def __init__(self, callout: GrpcStream, deliver: Deliver) -> None:
        self.callout = callout
        self.deliver = deliver
        self._changed = threading.Condition()
        self._unsent: deque[bytes] = deque()
        self._size = 0
        self._complete = False

    def send(self, message: bytes | None, *, end: bool) -> bool:
        """Queue a message, the last one if `end`. Returns false if too much waits already."""
        with self._changed:
            if self._complete:
                return True
            if message is not None:
                if self._size + len(message) > MAX_UNSENT:
                    return False
                self._unsent.append(message)
                self._size += len(message)
            self._complete = end
            self._changed.notify_all()
        self._sent()
        return True

    def end(self) -> None:
        """End the stream. Nothing more is sent."""
        with self._changed:
            self._unsent.clear()
            self._size, self._complete = 0, True
            self._changed.notify_all()
        self._sent()

    def __iter__(self) -> Iterator[bytes]:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._unsent or self._complete)
                message = self._take()
            if message is None:
                return
            yield message

    def cancel(self) -> None:
        """End the stream, which the guest has cancelled."""
        self.end()

    def _sent(self) -> None:
        """Wake the client."""

    def _take(self) -> bytes | None:
        """The next message, or ``None`` if none waits. The caller holds the lock."""
        if not self._unsent:
            return None
        message = self._unsent.popleft()
        self._size -= len(message)
        return message


class AsyncConversation(Conversation):
    """A conversation for clients in an event loop: ``async for message in conversation``.

    Args:
        callout: the stream.
        deliver: see `Deliver`.
        soon: a function that schedules a function in the event loop of the client, from the thread of the host.
    """

    def __init__(self, callout: GrpcStream, deliver: Deliver, soon: Callable[[Callable[[], Any]], Any]) -> None:
        super().__init__(callout, deliver)
        self._soon = soon
        self._wake: Callable[[], None] = lambda: None

    def _sent(self) -> None:
        self._soon(self._woken)

    def _woken(self) -> None:
        self._wake()

    async def __aiter__(self) -> AsyncIterator[bytes]:
        import anyio  # noqa: PLC0415 - from an extra

        while True:
            come = anyio.Event()
            self._wake = come.set
            with self._changed:
                message, complete = self._take(), self._complete
            if message is not None:
                yield message
            elif complete:
                return
            else:
                await come.wait()

    async def tell(self, reply: Reply) -> None:
        """Deliver a reply to the guest, and wait until it has it."""
        import anyio  # noqa: PLC0415 - likewise

        told = anyio.Event()
        self.deliver(self.callout, reply, lambda: self._soon(told.set))
        await told.wait()


class ThreadConversation(Conversation):
    """A conversation for clients in threads."""

    def __init__(self, callout: GrpcStream, deliver: Deliver) -> None:
        super().__init__(callout, deliver)
        self._over = False
        self.on_cancel: Callable[[], object] = lambda: None
        """Cancels the client's call, from any thread. Set by the client."""

    def cancel(self) -> None:
        """End the stream, which the guest has cancelled."""
        with self._changed:
            self._over = True
        self.end()
        self.on_cancel()

    @property
    def cancelled(self) -> bool:
        """Whether the guest has cancelled the stream."""
        return self._over

    def tell(self, reply: Reply) -> None:
        """Deliver a reply to the guest, and wait until it has it or has cancelled the stream."""
        told: list[bool] = []

        def now() -> None:
            with self._changed:
                told.append(True)
                self._changed.notify_all()

        self.deliver(self.callout, reply, now)
        with self._changed:
            self._changed.wait_for(lambda: told or self._over)
