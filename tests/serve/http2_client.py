"""Requests over HTTP/2 with trailers, and WebSockets over it, which the clients that we have do not send."""

from __future__ import annotations

import contextlib
import socket
import ssl
from collections.abc import Iterable

import h2.config
import h2.connection
import h2.events

Headers = Iterable[tuple[str, str]]


def request(
    port: int, path: str, headers: Headers = (), body: bytes = b"", trailers: Headers = (), *, tls: bool = True
) -> tuple[dict[str, str], bytes, dict[str, str]]:
    """POST a body in one part: headers, body and trailers of the response."""
    with Connection(port, tls=tls) as connection:
        stream = connection.stream("POST", path, headers)
        stream.send(body, end=not trailers)
        if trailers:
            stream.end(trailers)
        data = stream.rest()
        return stream.headers, data, stream.trailers


class Connection:
    """A connection whose settings have come."""

    def __init__(self, port: int, *, tls: bool = False) -> None:
        self._socket: socket.socket = socket.create_connection(("127.0.0.1", port), 60)
        self._scheme = "https" if tls else "http"
        if tls:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
            context.set_alpn_protocols(["h2"])
            self._socket = context.wrap_socket(self._socket, server_hostname="localhost")
        self.h2 = h2.connection.H2Connection(h2.config.H2Configuration(header_encoding="utf-8"))
        self.h2.initiate_connection()
        self._streams: dict[int, Stream] = {}
        self.going_away = self._told = False
        while not self._told:
            self.step()

    def __enter__(self) -> Connection:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def stream(self, method: str, path: str, headers: Headers = (), *, protocol: str = "", end: bool = False) -> Stream:
        """Begin a request; with a protocol, a CONNECT for it (RFC 8441)."""
        number = self.h2.get_next_available_stream_id()
        stream = self._streams[number] = Stream(self, number)
        pseudo = [(":method", method), (":scheme", self._scheme), (":authority", "localhost"), (":path", path)]
        pseudo += [(":protocol", protocol)] if protocol else []
        self.h2.send_headers(number, [*pseudo, *headers], end_stream=end)
        self.flush()
        return stream

    def settimeout(self, seconds: float) -> None:
        self._socket.settimeout(seconds)

    def flush(self) -> None:
        self._socket.sendall(self.h2.data_to_send())

    def step(self) -> None:
        """Take what comes next. Raises: ConnectionError, if nothing does."""
        self.flush()
        received = self._socket.recv(65536)
        if not received:
            raise ConnectionError("the server has closed the connection")
        for event in self.h2.receive_data(received):
            stream = self._streams.get(getattr(event, "stream_id", 0) or 0)
            if isinstance(event, h2.events.RemoteSettingsChanged):
                self._told = True
            elif isinstance(event, h2.events.ConnectionTerminated):
                self.going_away = True
            elif stream is not None:
                stream.take(event)
        self.flush()


class Stream:
    """A request and its response."""

    def __init__(self, connection: Connection, number: int) -> None:
        self._connection, self._number = connection, number
        self.headers: dict[str, str] = {}
        self.trailers: dict[str, str] = {}
        self.informational: list[dict[str, str]] = []
        self._data, self._ended, self._reset = b"", False, False

    def take(self, event: h2.events.Event) -> None:
        if isinstance(event, h2.events.InformationalResponseReceived):
            self.informational.append(dict(event.headers))
        elif isinstance(event, h2.events.ResponseReceived):
            self.headers = dict(event.headers)
        elif isinstance(event, h2.events.DataReceived):
            self._data += event.data
            self._connection.h2.acknowledge_received_data(event.flow_controlled_length, self._number)
        elif isinstance(event, h2.events.TrailersReceived):
            self.trailers = dict(event.headers)
        elif isinstance(event, h2.events.StreamEnded):
            self._ended = True
        elif isinstance(event, h2.events.StreamReset):
            self._reset = True

    def send(self, data: bytes, *, end: bool = False) -> None:
        most = self._connection.h2.max_outbound_frame_size
        for at in range(0, max(len(data), 1), most):
            part = data[at : at + most]
            self._connection.h2.send_data(self._number, part, end_stream=end and at + most >= len(data))
            self._connection.flush()

    def send_while_wanted(self, data: bytes, seconds: float) -> int:
        """Send as much as the server takes, until it has taken nothing for so long; how much that is."""
        connection, sent = self._connection, 0
        connection.settimeout(seconds)
        with contextlib.suppress(TimeoutError):
            while sent < len(data):
                size = min(connection.h2.local_flow_control_window(self._number), connection.h2.max_outbound_frame_size)
                if size:
                    connection.h2.send_data(self._number, data[sent : sent + size])
                    connection.flush()
                    sent += len(data[sent : sent + size])
                else:
                    connection.step()
        connection.settimeout(60)
        return sent

    def end(self, trailers: Headers = ()) -> None:
        if trailers:
            self._connection.h2.send_headers(self._number, [*trailers], end_stream=True)
        else:
            self._connection.h2.end_stream(self._number)
        self._connection.flush()

    def reset(self) -> None:
        self._connection.h2.reset_stream(self._number)
        self._connection.flush()

    @property
    def status(self) -> int:
        """When the response begins. Raises: ConnectionResetError."""
        while not self.headers:
            self._more()
        return int(self.headers[":status"])

    def receive(self) -> bytes:
        """Some of the body; empty at its end. Raises: ConnectionResetError."""
        while not self._data and not self._ended:
            self._more()
        data, self._data = self._data, b""
        return data

    def rest(self) -> bytes:
        """All of the body that is still to come."""
        return b"".join(iter(self.receive, b""))

    def _more(self) -> None:
        if self._reset:
            raise ConnectionResetError("the server has reset the stream")
        self._connection.step()
