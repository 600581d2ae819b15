"""A request over HTTP/2 with trailers, which the clients that we have do not send."""

from __future__ import annotations

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
    with socket.create_connection(("127.0.0.1", port), 60) as plain:
        sock = plain
        if tls:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
            context.set_alpn_protocols(["h2"])
            sock = context.wrap_socket(plain, server_hostname="localhost")
        with sock:
            return _exchange(sock, path, [*headers], body, [*trailers], "https" if tls else "http")


def _exchange(sock, path, headers, body, trailers, scheme):
    connection = h2.connection.H2Connection(h2.config.H2Configuration(header_encoding="utf-8"))
    connection.initiate_connection()
    pseudo = [(":method", "POST"), (":scheme", scheme), (":authority", "localhost"), (":path", path)]
    connection.send_headers(1, [*pseudo, *headers])
    connection.send_data(1, body, end_stream=not trailers)
    if trailers:
        connection.send_headers(1, trailers, end_stream=True)
    got, data, after = {}, b"", {}
    while True:
        sock.sendall(connection.data_to_send())
        received = sock.recv(65536)
        assert received, (got, data)
        for event in connection.receive_data(received):
            if isinstance(event, h2.events.ResponseReceived):
                got = dict(event.headers)
            elif isinstance(event, h2.events.DataReceived):
                data += event.data
                connection.acknowledge_received_data(event.flow_controlled_length, 1)
            elif isinstance(event, h2.events.TrailersReceived):
                after = dict(event.headers)
            elif isinstance(event, h2.events.StreamEnded):
                return got, data, after
            elif isinstance(event, h2.events.StreamReset):
                raise ConnectionResetError(event)
