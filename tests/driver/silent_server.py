"""A server on loopback that speaks HTTP/2 until it has been asked, and is silent from then on."""

from __future__ import annotations

import contextlib
import socket
import threading

import h2.config
import h2.connection
import h2.events


class SilentServer:
    """Its connection stays open. ``asked`` has the headers of requests; ``pinged`` says that a ping was not answered."""

    def __init__(self) -> None:
        self.asked: list[dict[bytes, bytes]] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self.pinged = threading.Event()
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def _serve(self) -> None:
        with contextlib.suppress(OSError):  # the test is over
            connection, _ = self._listener.accept()
            with connection:
                self._converse(connection)

    def _converse(self, connection: socket.socket) -> None:
        peer = h2.connection.H2Connection(h2.config.H2Configuration(client_side=False))
        peer.initiate_connection()
        while True:
            if not self.asked:
                connection.sendall(peer.data_to_send())
            received = connection.recv(1 << 16)
            if not received:
                return
            for event in () if self.pinged.is_set() else peer.receive_data(received):
                if isinstance(event, h2.events.RequestReceived):
                    self.asked.append(dict(event.headers))
                elif self.asked and isinstance(event, h2.events.PingReceived):
                    self.pinged.set()

    def stop(self) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join()
