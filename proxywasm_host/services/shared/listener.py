"""Notifies processes of messages in shared queues, by a thread in each process that has registered queues."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator

from proxywasm_host.forks import renew_in_children
from proxywasm_host.services.quota import QuotaExceeded
from proxywasm_host.services.unavailable import ServiceUnavailable

__all__ = ["Listener", "ListeningQueues"]

EACH = 1.0
"""Seconds between checks of queues without a notification."""
logger = logging.getLogger("proxywasm_host.services")


class Listener:
    """A thread that takes notes of messages in the queues of this process, and notifies their registrars."""

    def __init__(self) -> None:
        self._told: dict[int, Callable[[int], None]] = {}
        """The function to call for each queue, by token."""
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="proxywasm-queues", daemon=True)
        self._thread.start()

    def listen(self, token: int, on_ready: Callable[[int], None]) -> None:
        """Call only `on_ready` for messages of this queue from now on."""
        self._told[token] = on_ready  # the last one to register is notified (shared_queue.cc)
        self._wake()

    def close(self) -> None:
        """Stop notifying."""
        self._over.set()
        self._wake()
        if threading.current_thread() is not self._thread:
            self._thread.join(EACH * 2)
        self._free()

    def _run(self) -> None:
        away = False
        while not self._over.is_set():
            try:
                for token in self._take():
                    self._tell(token)
                away = False
            except (ServiceUnavailable, QuotaExceeded) as error:  # noqa: PERF203 - the thread continues
                if not (away or self._over.is_set()):
                    away = True
                    logger.warning("messages in shared queues do not arrive for now: %s", error)
                self._over.wait(EACH)

    def _tell(self, token: int) -> None:
        try:
            self._told[token](token)
        except Exception:
            logger.exception("a notification of a message failed")

    # -- For each store ------------------------------------------------------------------------------------------

    def _take(self) -> Iterator[int]:
        """Wait at most `EACH` seconds for messages; take notes, and yield the token of each.

        Once `_over` is set, it takes no further note. Raises: ServiceUnavailable, QuotaExceeded.
        """
        raise NotImplementedError

    def _wake(self) -> None:
        """End the wait of `_take`."""
        raise NotImplementedError

    def _free(self) -> None:
        """Release the resources of the thread."""
        raise NotImplementedError


class ListeningQueues:
    """Queues with a `Listener` in each process that registers one, also in a fork."""

    def __init__(self) -> None:
        self._forked()
        renew_in_children(self)

    def _forked(self) -> None:
        """Begin without a listener, whose thread is the parent's."""
        self._listener: Listener | None = None
        self._lock = threading.Lock()

    def _new_listener(self) -> Listener:
        """A new `Listener` for this process. Raises: ServiceUnavailable."""
        raise NotImplementedError

    def _listen(self, token: int, on_ready: Callable[[int], None]) -> None:
        """Call `on_ready` for messages of a queue. Raises: ServiceUnavailable."""
        with self._lock:
            if self._listener is None:
                self._listener = self._new_listener()
            self._listener.listen(token, on_ready)

    def close(self) -> None:
        """Stop the notifications in this process."""
        with self._lock:
            listener, self._listener = self._listener, None
        if listener is not None:
            listener.close()
