"""An HTTP/2 server with TLS, in a process that tests can kill: ``python http2_server.py PORT CERTIFICATE KEY``.

It says ``listening PORT``, and ``asked PATH`` once a request is there as a whole. Answers by path: ``/echo`` tells the
request with its trailers, and ``/echo/trailers`` has one of its own, ``x-answer``; ``/together`` answers when two wait for it, both on one connection; ``/begins`` sends a head and a byte, and no
more; ``/hinted`` answers after many interim responses; ``/silent`` nothing.
"""

from __future__ import annotations

import asyncio
import ssl
import sys

import h2.config
import h2.connection
import h2.events


class Connection(asyncio.Protocol):
    def connection_made(self, transport) -> None:
        self.transport = transport
        self.h2 = h2.connection.H2Connection(h2.config.H2Configuration(client_side=False, header_encoding="utf-8"))
        self.h2.initiate_connection()
        self.requests: dict[int, tuple[list[tuple[str, str]], bytearray]] = {}
        """Headers, with trailers at their end, and body."""
        self.together: list[int] = []
        self.flush()

    def flush(self) -> None:
        self.transport.write(self.h2.data_to_send())

    def data_received(self, data: bytes) -> None:
        for event in self.h2.receive_data(data):
            if isinstance(event, h2.events.RequestReceived):
                self.requests[event.stream_id] = event.headers, bytearray()
            elif isinstance(event, h2.events.TrailersReceived):
                self.requests[event.stream_id][0].extend(event.headers)
            elif isinstance(event, h2.events.DataReceived):
                self.requests[event.stream_id][1].extend(event.data)
                self.h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
            elif isinstance(event, h2.events.StreamEnded):
                self.asked(event.stream_id, *self.requests.pop(event.stream_id))
        self.flush()

    def asked(self, stream: int, headers: list[tuple[str, str]], body: bytearray) -> None:
        path = dict(headers)[":path"]
        if path.startswith("/echo"):
            told = " ".join(f"{name}={value}" for name, value in headers if name != "user-agent")
            trailers = [("x-answer", "yes")] if path == "/echo/trailers" else []
            self.answer(stream, f"{told} {body.decode()}".encode(), trailers)
        elif path == "/together":
            self.together.append(stream)
            if len(self.together) == 2:
                for each in self.together:
                    self.answer(each, b"two on one connection")
        elif path == "/hinted":
            for _ in range(100):
                self.h2.send_headers(stream, [(":status", "103"), ("link", "</a>")])
            self.answer(stream, b"at last")
        elif path == "/begins":
            self.h2.send_headers(stream, [(":status", "200")])
            self.h2.send_data(stream, b"x")
        self.flush()
        print("asked", path, flush=True)

    def answer(self, stream: int, body: bytes, trailers: list[tuple[str, str]] | tuple[()] = ()) -> None:
        self.h2.send_headers(stream, [(":status", "200"), ("content-length", str(len(body)))])
        self.h2.send_data(stream, body, end_stream=not trailers)
        if trailers:
            self.h2.send_headers(stream, trailers, end_stream=True)


async def main(port: str, certificate: str, key: str) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    context.set_alpn_protocols(["h2"])
    server = await asyncio.get_running_loop().create_server(Connection, "127.0.0.1", int(port), ssl=context)
    print("listening", server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
