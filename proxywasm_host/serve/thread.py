"""The interface of a thread of the data plane to the event loop next to it."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, TypeVar

from proxywasm_dataplane import ServerThread

__all__ = ["Thread"]

T = TypeVar("T")
OVER = "the thread of the data plane has ended"


class Thread:
    """Serves from `start` to `end`. Created in the control loop, an event loop that does everything but requests."""

    def __init__(self, listening: Sequence[socket.socket], *, http: bool) -> None:
        """Serve on `listening`: HTTP on the first socket if `http`, and those of `Settings.tcp` on the others."""
        self.native = ServerThread()
        self.control_loop = asyncio.get_running_loop()
        self._http, self._tcp = (listening[:1], listening[1:]) if http else ((), listening)
        self._closed, self._ended = asyncio.Event(), asyncio.Event()
        self._asked: set[asyncio.Future[Any]] = set()
        self._ending = False
        self._thread = threading.Thread(target=self._run, name="proxywasm-server")

    def start(self) -> None:
        """Start the thread. It accepts connections once it has a configuration (`ServerThread.use_chain`)."""
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
            self.call_control_loop(self._over)

    def _over(self) -> None:
        """Let nobody wait for the thread, which has ended, perhaps after an error."""
        self._ended.set()
        self._closed.set()
        for answer in self._asked:
            if self._ending:
                answer.cancel()
            else:
                _raise(answer, RuntimeError(OVER))

    def call_control_loop(self, function: Callable[[], object]) -> None:
        """Call a function in the control loop soon."""
        if not self.control_loop.is_closed():
            self.control_loop.call_soon_threadsafe(function)

    async def ask(self, function: Callable[[], T]) -> T:
        """Call a function in the thread. Returns its result, or raises its exception.

        Raises: RuntimeError, if the thread has ended.
        """
        if self._ended.is_set():
            raise RuntimeError(OVER)
        answer: asyncio.Future[T] = self.control_loop.create_future()
        self._asked.add(answer)
        answer.add_done_callback(self._asked.discard)

        def call() -> None:
            try:
                result = function()
            except Exception as error:  # noqa: BLE001 - `ask` raises it
                self.call_control_loop(partial(_raise, answer, error))
            else:
                self.call_control_loop(partial(_return, answer, result))

        self.native.call_soon(call)
        return await answer

    async def close(self, seconds: float) -> None:
        """Accept no more requests, and give the current ones `seconds` to end."""
        self.native.close(seconds, lambda: self.call_control_loop(self._closed.set))
        await self._closed.wait()

    async def end(self) -> None:
        """End the thread; requests that still run are cut off."""
        self._ending = True
        self.native.end()
        await self._ended.wait()
        self._thread.join()


def _return(answer: asyncio.Future[T], result: T) -> None:
    if not answer.done():
        answer.set_result(result)


def _raise(answer: asyncio.Future[T], error: Exception) -> None:
    if not answer.done():
        answer.set_exception(error)
