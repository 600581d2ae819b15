"""A thread of the data plane as the event loop beside it sees it."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Callable, Sequence
from functools import partial
from typing import TypeVar

from proxywasm_dataplane import ServerThread

__all__ = ["Thread"]

T = TypeVar("T")


class Thread:
    """Serves from `start` to `end`. Made in an event loop, the control loop, which does everything but requests."""

    def __init__(self, listening: Sequence[socket.socket], *, http: bool) -> None:
        """Serve on `listening`: `http` on the first, if that is served, and each of `Settings.tcp`."""
        self.native = ServerThread()
        self.control_loop = asyncio.get_running_loop()
        self._http, self._tcp = (listening[:1], listening[1:]) if http else ((), listening)
        self._ended = asyncio.Event()
        self._thread = threading.Thread(target=self._run, name="proxywasm-server")

    def start(self) -> None:
        """Start the thread. It takes connections once it has a chain (`ServerThread.use_chain`)."""
        self._thread.start()

    @property
    def id(self) -> int:
        """The system's id of the thread, once it has started."""
        return self._thread.native_id or 0

    def _run(self) -> None:
        try:
            http = [each.dup().detach() for each in self._http]
            self.native.run(http[0] if http else None, [each.dup().detach() for each in self._tcp])
        finally:
            self.call_control_loop(self._ended.set)

    def call_control_loop(self, function: Callable[[], object]) -> None:
        """Call a function in the control loop soon."""
        if not self.control_loop.is_closed():
            self.control_loop.call_soon_threadsafe(function)

    async def ask(self, function: Callable[[], T]) -> T:
        """Call a function in the thread, and raise its exceptions."""
        answer: asyncio.Future[T] = self.control_loop.create_future()

        def call() -> None:
            try:
                result = function()
            except Exception as error:  # noqa: BLE001 - it is raised where it was asked for
                self.call_control_loop(partial(_raise, answer, error))
            else:
                self.call_control_loop(partial(_return, answer, result))

        self.native.call_soon(call)
        return await answer

    async def close(self, seconds: float) -> None:
        """Accept no more requests, and give the current ones so many seconds to end."""
        closed = asyncio.Event()
        self.native.close(seconds, lambda: self.call_control_loop(closed.set))
        await closed.wait()

    async def end(self) -> None:
        """End the thread after its last request."""
        self.native.end()
        await self._ended.wait()
        self._thread.join()


def _return(answer: asyncio.Future[T], result: T) -> None:
    if not answer.done():
        answer.set_result(result)


def _raise(answer: asyncio.Future[T], error: Exception) -> None:
    if not answer.done():
        answer.set_exception(error)
