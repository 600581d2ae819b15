"""The driver for programs with threads, such as WSGI servers and scripts.

    with Host(services=Services(clusters=clusters)) as host, ThreadDriver(host) as driver:
        plugin = host.load_plugin("auth.wasm")
        with driver.lock:
            stream = host.http_stream([plugin])
            driver.attach(stream, sink)
            driver.perform(stream.request_headers(headers))

Rules of this module:

* A thread holds `ThreadDriver.lock` while it uses the host, its streams or the driver, so callbacks of one VM never
  overlap. Sinks are called with the lock held. No thread waits for the network with the lock held.
* Some threads make callouts, and another one runs ticks. They take the lock to deliver replies and ticks. None of them
  delays the end of the process.
* An exception of a client is logged, and the guest gets a failed callout.
"""

from __future__ import annotations

import heapq
import os
import threading
import time
from collections.abc import Callable, Mapping
from itertools import count
from typing import Any, Protocol

from proxywasm_host.driver.clients import Clients
from proxywasm_host.driver.clusters import Clusters
from proxywasm_host.driver.conversation import Conversation, ThreadConversation
from proxywasm_host.driver.dispatch import IDLE_CHECKS, Dispatcher, clients_by_type, logger
from proxywasm_host.forks import renew_in_children
from proxywasm_host.recording.record import Record
from proxywasm_host.runtime.effects import Callout, CalloutFailed, GrpcStream, Reply
from proxywasm_host.runtime.host import Host
from proxywasm_host.runtime.plugin import Plugin

__all__ = ["Client", "ThreadDriver"]

IDLE = 10.0
"""Seconds for which a thread waits for the next callout."""
PATIENCE = 5.0
"""Seconds that clients get to end their callouts when the driver ends."""
AGAIN = 0.02
"""Seconds until a callout is cancelled again that was not found, because it had just begun."""


class Client(Protocol):
    """Makes callouts of one kind, in any thread."""

    def __call__(self, callout: Any, /, *conversation: Any) -> Reply:
        """Make the callout and return its reply.

        The client of `GrpcStream` also gets a `ThreadConversation`, and runs in a separate thread. It sends the
        messages of ``for message in conversation``, calls `ThreadConversation.tell` with each reply, and returns the
        last one, a `GrpcClosed`.
        """
        ...


class ThreadDriver(Dispatcher):
    """Performs the effects of `host` from ``__enter__`` to ``__exit__``; the host stays open.

    Args:
        host: the host whose effects are performed; its `Host.wake` is set meanwhile.
        clients: functions that make callouts, by type of effect (`HttpCall`, `RedisCall`, …). Callouts of other types
            go to the host's clusters if these are a `Clusters`, and else fail.
        threads: maximum number of concurrent callouts, not counting gRPC streams; further ones wait.
        stream_idle_timeout: seconds without progress after which `HttpStream.time_out` ends an attached stream;
            ``None`` for never.
    """

    def __init__(
        self,
        host: Host,
        clients: Mapping[type[Callout], Client] | None = None,
        *,
        threads: int = 32,
        stream_idle_timeout: float | None = None,
        record: Record | None = None,
    ) -> None:
        super().__init__(host, stream_idle_timeout=stream_idle_timeout, record=record)
        self.lock: Any = threading.RLock()
        self._clients = clients_by_type(clients)
        self._threads = threads
        self._own_clients: Clients | None = None
        self._running = False
        self._process = 0
        self._changed = threading.Condition(self.lock)
        """Notified when a callout waits for a thread, when the driver ends, and then when a thread ends."""
        self._made = self._idle = 0
        """Number of threads for callouts, and of those that wait for one."""
        self._under_way: dict[int, Callout] = {}
        """Callouts that threads make, by identity."""
        self._queued: dict[tuple[Plugin, int], Callout] = {}
        """Callouts that wait for a thread."""
        self._waiting: dict[tuple[Plugin, int], Callout] = {}
        """Callouts that wait for a reply."""
        self._ticking: dict[Plugin, object] = {}
        self._timer = Timer()
        renew_in_children(self)

    def _forked(self) -> None:
        self.lock = _ParentsLock()

    def __enter__(self) -> ThreadDriver:
        clusters = self.host.services.clusters
        if isinstance(clusters, Clusters) and clusters.reachable:
            self._own_clients = Clients(clusters)
        with self.lock:
            self._running, self._process = True, os.getpid()
            self._timer.start()
            self.host.wake = lambda: self._timer.after(0, self._woken)
            if self.stream_idle_timeout is not None:
                self._check_idle_every(self.stream_idle_timeout / IDLE_CHECKS)
            self.perform(self.host.drain())
        return self

    def __exit__(self, *_: object) -> None:
        if self._process != os.getpid():
            return  # a child does not have the threads, one of which may have held the lock at the fork
        with self.lock:
            self._reset_streams()
            self.host.wake = None
            self._running = False
            self._queued.clear()
            for plugin, token in list(self._waiting):
                self._cancel(plugin, token)
            self._ticking.clear()
            self._forget()
        self._timer.stop()
        self._end_threads()
        if self._own_clients is not None:  # after the threads, because a later connection would stay open
            self._own_clients.close()
            self._own_clients = None

    def _end_threads(self) -> None:
        """Wait until no thread makes a callout, but not for ever for a client of the embedder."""
        until = time.monotonic() + PATIENCE
        with self.lock:
            self._changed.notify_all()
            while self._made:
                for callout in self._under_way.values():
                    if self._own_clients is not None and type(callout) not in self._clients:
                        self._own_clients.cancel(callout)
                if time.monotonic() > until:
                    names = ", ".join(sorted({type(callout).__name__ for callout in self._under_way.values()}))
                    logger.warning("the clients of %s do not end: their threads are left to themselves", names)
                    return
                self._changed.wait(AGAIN)

    def _woken(self) -> None:
        with self.lock:
            if self._running:
                self.perform(self.host.drain())

    def _later(self, seconds: float, function: Callable[[], None]) -> None:
        def later() -> None:
            with self.lock:
                if self._running:
                    function()

        self._timer.after(seconds, later)

    # -- Ticks ---------------------------------------------------------------------------------------------------

    def _arm(self, plugin: Plugin, milliseconds: int) -> None:
        self._timer.forget(self._ticking.pop(plugin, None))
        if milliseconds:
            self._ticking[plugin] = mark = object()
            self._timer.after(milliseconds / 1000, lambda: self._tick(plugin, milliseconds, mark), mark)

    def _tick(self, plugin: Plugin, milliseconds: int, mark: object) -> None:
        with self.lock:
            if self._ticking.get(plugin) is not mark:
                return
            self.tick(plugin)
            if self._ticking.get(plugin) is mark:
                self._timer.after(milliseconds / 1000, lambda: self._tick(plugin, milliseconds, mark), mark)

    # -- Callouts ------------------------------------------------------------------------------------------------

    def _call(self, callout: Callout) -> bool:
        if self._client(callout) is None or not self._running:
            return False
        self._waiting[callout.plugin, callout.token] = callout
        if isinstance(callout, GrpcStream):
            self._lead(callout)
            return True
        self._queued[callout.plugin, callout.token] = callout
        if self._idle >= len(self._queued):
            self._changed.notify()
        elif self._made < self._threads:
            threading.Thread(target=self._work, name="proxywasm-callout", daemon=True).start()
            self._made += 1
        return True

    def _client(self, callout: Callout) -> Client | None:
        return self._clients.get(type(callout), self._own_clients)

    def _lead(self, callout: GrpcStream) -> None:
        """Make a gRPC stream in a separate thread. It may last for ever, but there are few at a time."""
        conversation = self._conversations[callout.plugin, callout.token]
        name = "proxywasm-grpc-stream"
        threading.Thread(target=self._answer, args=(callout, conversation), name=name, daemon=True).start()

    def _work(self) -> None:
        """Make callouts until none comes for some time."""
        while (callout := self._next()) is not None:
            try:
                self._answer(callout)
            except Exception:  # noqa: BLE001, PERF203 - the next callout is made nevertheless
                logger.exception("the reply to %s failed", type(callout).__name__)
            finally:
                with self.lock:
                    del self._under_way[id(callout)]

    def _next(self) -> Callout | None:
        with self.lock:
            self._idle += 1
            self._changed.wait_for(lambda: self._queued or not self._running, IDLE)
            self._idle -= 1
            if not self._queued:
                self._made -= 1
                self._changed.notify_all()
                return None
            callout = self._queued.pop(next(iter(self._queued)))
            self._under_way[id(callout)] = callout
            return callout

    def _answer(self, callout: Callout, *conversation: Conversation) -> None:
        client = self._client(callout)
        assert client is not None  # noqa: S101 - `_call` has checked it
        try:
            reply = client(callout, *conversation)
        except Exception as error:  # noqa: BLE001 - the guest must get a reply
            logger.exception("the client of %s failed", type(callout).__name__)
            reply = CalloutFailed(f"{type(error).__name__}: {error}")
        with self.lock:
            if self._waiting.get((callout.plugin, callout.token)) is callout:
                del self._waiting[callout.plugin, callout.token]
                self._finish(callout, reply)

    def _cancel(self, plugin: Plugin, token: int) -> None:
        callout = self._waiting.pop((plugin, token), None)
        if self._queued.pop((plugin, token), None) is None and callout is not None and self._own_clients is not None:
            self._own_clients.cancel(callout)

    def _converse(self, callout: GrpcStream) -> ThreadConversation:
        return ThreadConversation(callout, self._deliver_locked)

    def _deliver_locked(self, callout: Callout, reply: Reply, then: Callable[[], None]) -> None:
        with self.lock:
            if self._waiting.get((callout.plugin, callout.token)) is callout:
                self._deliver(callout, reply, then)
            else:
                then()


class _ParentsLock:
    """Replaces the lock of a driver in a child process. Taking it raises RuntimeError."""

    def __enter__(self) -> None:
        raise RuntimeError("this driver's threads are those of the parent process: enter a ThreadDriver in this one")

    def __exit__(self, *_: object) -> None:
        raise AssertionError  # never entered

    acquire = __enter__


class Timer:
    """Calls functions at their times, one after the other, in a separate thread."""

    def __init__(self) -> None:
        self._due: list[tuple[float, int, Callable[[], None], object]] = []
        self._number = count()
        self._changed = threading.Condition(threading.Lock())
        self._stopped = False
        self._thread = threading.Thread(target=self._run, name="proxywasm-timer", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Stop calling functions. Waits for the current call, unless that call is the caller of `stop`."""
        with self._changed:
            self._stopped = True
            self._changed.notify()
        if self._thread is not threading.current_thread():
            self._thread.join()

    def after(self, seconds: float, function: Callable[[], None], mark: object = None) -> None:
        """Call a function after `seconds`, unless `forget` drops its `mark` before."""
        with self._changed:
            heapq.heappush(self._due, (time.monotonic() + seconds, next(self._number), function, mark))
            self._changed.notify()

    def forget(self, mark: object) -> None:
        """Drop all functions with this mark, because they could be due in weeks."""
        if mark is not None:
            with self._changed:
                self._due = [due for due in self._due if due[3] is not mark]
                heapq.heapify(self._due)

    def _run(self) -> None:
        while (function := self._next()) is not None:
            self._call(function)

    @staticmethod
    def _call(function: Callable[[], None]) -> None:
        try:
            function()
        except Exception:  # noqa: BLE001 - the next function is called nevertheless
            logger.exception("a timer's function failed")

    def _next(self) -> Callable[[], None] | None:
        with self._changed:
            while not self._stopped:
                wait = self._due[0][0] - time.monotonic() if self._due else None
                if wait is not None and wait <= 0:
                    return heapq.heappop(self._due)[2]
                self._changed.wait(wait)
            return None
