"""A server's address on loopback that is gone from one byte to the next, as if the server had been killed."""

from __future__ import annotations

import contextlib
import socket
import threading

CLIENT, SERVER = "client", "server"


class Relay:
    """Carries connections to the server at `target`, a port, and back; clients know its own `port`.

    ``relay.dies_at(SERVER, b"half")``: as soon as the server has said this, the client gets what came until there, and
    nothing more. Of ``dies_at(CLIENT, …)`` the server hears nothing more. Then nobody listens until `start`.
    """

    def __init__(self, target: int) -> None:
        self.target = target
        self.port = 0
        self.died = threading.Event()
        self._fatal: tuple[str, bytes] | None = None
        self._lock = threading.Lock()
        self._open: list[socket.socket] = []
        self._threads: list[threading.Thread] = []
        self.start()

    def start(self) -> None:
        """Listen, the first time on a port that the system chooses, later on the same."""
        with self._lock:
            listener = socket.create_server(("127.0.0.1", self.port))
            self.port = listener.getsockname()[1]
            self._fatal = None
            self.died.clear()
            self._open.append(listener)
        self._begin(self._accept, listener)

    def dies_at(self, side: str, words: bytes) -> None:
        self._fatal = side, words

    def stop(self) -> None:
        """End all connections, and take no more."""
        with self._lock:
            while self._open:
                _end(self._open.pop())
            self.died.set()

    def join(self) -> None:
        """Stop, and wait for the threads."""
        self.stop()
        for thread in self._threads:
            thread.join()

    def _begin(self, run, *args) -> None:
        thread = threading.Thread(target=run, args=args)
        self._threads.append(thread)
        thread.start()

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                client, _ = listener.accept()
            except OSError:
                return
            server = socket.create_connection(("127.0.0.1", self.target))
            with self._lock:
                if listener not in self._open:  # it died since the connection came
                    _end(client)
                    _end(server)
                    return
                self._open += [client, server]
            self._begin(self._carry, CLIENT, client, server)
            self._begin(self._carry, SERVER, server, client)

    def _carry(self, side: str, source: socket.socket, sink: socket.socket) -> None:
        before = b""
        with contextlib.suppress(OSError):
            while part := source.recv(65536):
                fatal, words = self._fatal or ("", b"")
                at = (before + part).find(words, max(0, len(before) - len(words) + 1)) if fatal == side else -1
                if at >= 0:
                    if side == SERVER:
                        sink.sendall(part[: at + len(words) - len(before)])
                    self.stop()
                    return
                sink.sendall(part)
                before = (before + part)[-100:]
            sink.shutdown(socket.SHUT_WR)


def _end(connection: socket.socket) -> None:
    with contextlib.suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)
    connection.close()
