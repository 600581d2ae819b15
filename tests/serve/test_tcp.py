"""What is not HTTP, through ``serve``: real connections to a real server, with network filters in between."""

from __future__ import annotations

import contextlib
import logging
import re
import socket
import socketserver
import ssl
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

from proxywasm_host.configuration.writers.envoy import EnvoyWriter
from proxywasm_host.errors import ConfigError
from proxywasm_host.serve.source import Source, read_configuration
from tests.envoy import proxy
from tests.serve.in_process import Client, beside
from tests.serve.ports import closed_port
from tests.serve.test_serve import certificate
from tests.support import FILTERS

UPPER = str(FILTERS / "rust" / "tcp.wasm")
PROBE = str(FILTERS / "c" / "probe_0_2_1.wasm")
SECONDS = 20
LATER = "@on_configure\nset_tick_period_milliseconds 50\n@on_tick\nset_effective_context $stream\ncontinue_stream 2\n"


class Echo(socketserver.ThreadingTCPServer):
    """Sends back what comes, and its end; greets with `greeting`."""

    allow_reuse_address = daemon_threads = True
    greeting = b""
    connections = 0

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.ends: list[bytes] = []

    @property
    def url(self) -> str:
        return f"tcp://127.0.0.1:{self.server_address[1]}"


class Handler(socketserver.BaseRequestHandler):
    server: Echo

    def handle(self) -> None:
        self.server.connections += 1
        self.request.sendall(self.server.greeting)
        with contextlib.suppress(OSError):
            while data := self.request.recv(65536):
                self.request.sendall(data)
            self.request.sendall(b".")
            time.sleep(0.05)  # so that its end comes by itself
        self.server.ends.append(b"end")


@contextlib.contextmanager
def echoing() -> Iterator[Echo]:
    with Echo() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


@pytest.fixture
def echo() -> Iterator[Echo]:
    with echoing() as server:
        yield server


def tcp(upstream: str, *filters: dict[str, Any], engine: Any = None, **listener: Any) -> dict[str, Any]:
    """A configuration with one listener."""
    settings = {"tcp": [{"listen": "127.0.0.1:0", "upstream": upstream, "filters": list(filters), **listener}]}
    return settings | ({"engine": engine.name} if engine else {})


def probe(script: str, **options: Any) -> dict[str, Any]:
    return {"file": PROBE, "configuration": script, **options}


def said(client: Client, data: bytes) -> bytes:
    """What comes back of data, of which nothing is lost or doubled."""
    client.send(data)
    return client.read(len(data))


@pytest.mark.carries("serve", "TCP")
def test_bytes_pass_filters_both_ways(engine, echo):
    with beside(tcp(echo.url, {"file": UPPER}, engine=engine)) as served, served.connect(0) as client:
        assert said(client, b"abc") == b"ABC"
        much = bytes(range(97, 123)) * 40_000
        sending = threading.Thread(target=client.send, args=(much,))
        sending.start()
        assert client.read(len(much)) == much.upper()
        sending.join()
        client.end()
        assert client.rest() == b"."


def answered(client: Client, data: bytes) -> bytes:
    """What comes back of data; nothing, if the connection is closed."""
    with client, contextlib.suppress(ConnectionError):
        return said(client, data)
    return b""


def test_without_filters(echo):
    with beside(tcp(echo.url)) as served, served.connect(0) as client:
        assert said(client, b"abc") == b"abc"
        client.end()
        assert client.rest() == b"."
        assert served.counted("upstream_requests") == {f"{echo.url} {echo.url[6:]}": 1}


def test_a_filter_denies(engine, echo):
    with beside(tcp(echo.url, {"file": UPPER, "configuration": "deny"}, engine=engine)) as served:
        with served.connect(0) as client:
            assert client.rest() == b""
        assert echo.connections == 0


def test_upstream_is_connected_when_filters_let_the_connection_go_on(engine, echo):
    echo.greeting = b"hello"
    held = probe(LATER + "@on_new_connection\nreturn 1")
    with beside(tcp(echo.url, held, {"file": UPPER}, engine=engine)) as served:
        with served.connect(0) as client:  # which says nothing
            assert client.read(5) == b"hello"
        with served.connect(0) as client:
            client.send(b"early")
            client.end()
            assert client.rest() == b"helloEARLY."


def test_data_is_held_and_seen_as_a_whole(engine, echo):
    # until there are as many bytes; then without the first
    held = probe("@on_downstream_data/1\nreturn 1\n@on_downstream_data/2\nset_buffer_bytes 2 0 1 X")
    with beside(tcp(echo.url, held, engine=engine)) as served, served.connect(0) as client:
        client.send(b"abc")
        time.sleep(0.05)
        client.send(b"def")
        assert client.read(6) == b"Xbcdef"


def test_a_filter_that_holds_without_end_costs_its_connection(echo):
    with beside(tcp(echo.url, probe("@on_downstream_data\nreturn 1")) | {"buffer_limit": 1000}) as served:
        with served.connect(0) as client, contextlib.suppress(ConnectionError):
            for _ in range(3):
                client.send(bytes(16 << 10))
                time.sleep(0.02)
            assert client.rest() == b""
        client = served.connect(0)
        client.send(bytes(900))
        client._socket.settimeout(0.2)
        with pytest.raises(TimeoutError):
            client.read(1)
        client.abort()


@pytest.mark.parametrize(
    ("policy", "answers"),
    [("fail_closed", [b"", b""]), ("fail_open", [b"", b"abc"]), ("fail_reload", [b"", b""])],
)
def test_a_guest_that_fails_costs_its_connection_and_others_by_its_policy(engine, echo, policy, answers):
    broken = probe("@on_downstream_data/1\ntrap", failure_policy=policy, reload_interval=0)
    settings = tcp(echo.url, broken, engine=engine)
    with beside(settings) as served:
        assert [answered(served.connect(0), b"abc") for _ in range(2)] == answers


def test_a_filter_closes_after_what_was_sent(engine, echo):
    closes = probe("@on_upstream_data\nclose_stream 2")
    with beside(tcp(echo.url, closes, engine=engine)) as served, served.connect(0) as client:
        client.send(b"abc")
        assert client.rest() == b""


def test_servers_that_are_not_there(echo):
    nobody = {"url": f"tcp://127.0.0.1:{closed_port()}"}
    upstreams = {"none": nobody, "some": {"servers": [nobody, {"url": echo.url}]}}
    listeners = [{"upstream": "none"}, {"upstream": "some", "connect_attempts": 2}]
    settings = {"upstreams": upstreams, "tcp": [{"listen": "127.0.0.1:0", **each} for each in listeners]}
    with beside(settings) as served:
        with served.connect(0) as client:
            assert client.rest() == b""
        for _ in range(4):
            with served.connect(1) as client:
                assert said(client, b"abc") == b"abc"
        assert sum(served.counted("upstream_connect_failures").values()) >= 2


def test_who_says_nothing_is_cut_off(echo):
    with beside(tcp(echo.url, {"file": UPPER}, idle_timeout=0.4)) as served, served.connect(0) as client:
        for _ in range(4):  # longer than that, but not without a byte
            time.sleep(0.15)
            assert said(client, b"a") == b"A"
        assert client.rest() == b""


def test_a_client_that_goes_away(echo, caplog):
    caplog.set_level(logging.INFO, "proxywasm_host.guest")
    with beside(tcp(echo.url, {"file": UPPER})) as served:
        with contextlib.suppress(ConnectionError):
            client = served.connect(0)
            said(client, b"abc")
            client.abort()
        proxy.wait_for(lambda: any("tcp: log" in line for line in caplog.messages), SECONDS)
        assert any("tcp: downstream closed by Remote" in line for line in caplog.messages)
        proxy.wait_for(lambda: echo.ends, SECONDS)  # upstream is told


def test_connections_that_are_open_when_the_server_ends(engine, echo, caplog):
    """They are closed, and filters are told, as in Envoy."""
    caplog.set_level(logging.INFO, "proxywasm_host.guest")
    settings = tcp(echo.url, {"file": UPPER}, engine=engine) | {"shutdown_timeout": 1}
    with beside(settings) as served:
        client = served.connect(0)
        assert said(client, b"abc") == b"ABC"
    with client:
        assert client.rest() == b""
    assert lines("\n".join(caplog.messages))[-3:] == ["tcp: downstream closed by Local", "tcp: done", "tcp: log"]


def test_who_does_not_read_is_not_read_for(echo):
    with beside(tcp(echo.url, {"file": UPPER})) as served, served.connect(0) as client:
        client._socket.settimeout(0.5)
        sent = 0
        with contextlib.suppress(TimeoutError):
            while sent < 256 << 20:
                sent += client._socket.send(bytes(1 << 16))
        assert sent < 256 << 20  # the system's buffers, each of up to 32 MiB, are full, and nothing else takes bytes


def test_properties(engine, echo, caplog):
    caplog.set_level(logging.INFO, "proxywasm_host.guest")
    paths = ("source%00address", "destination%00port", "xds%00cluster_name", "upstream%00address", "request%00protocol")
    script = "@on_downstream_data\n" + "\n".join(f"get_property {path}" for path in paths)
    with beside(tcp(echo.url, probe(script), engine=engine)) as served, served.connect(0) as client:
        said(client, b"abc")
        here = client._socket.getsockname()
    lines = [line.partition("get_property(")[2] for line in caplog.messages if "get_property(" in line]
    assert lines[0].endswith(f'= 0 "127.0.0.1:{here[1]}"')
    assert lines[2].endswith(f'= 0 "{echo.url}"')
    assert lines[3].endswith(f'= 0 "{echo.url[6:]}"')
    assert lines[4].endswith("= 1")


def test_tls_on_both_sides(engine, tmp_path, echo):
    (tmp_path / "ours").mkdir()
    cert, key = certificate(tmp_path / "ours")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(cert, key)
    echo.socket = context.wrap_socket(echo.socket, server_side=True)
    url = echo.url.replace("tcp://", "tls://")
    settings = tcp("app", {"file": UPPER}, engine=engine, tls={"certificate": cert, "key": key})
    settings["upstreams"] = {"app": {"url": url, "tls": {"ca": cert, "server_name": "localhost"}}}
    trusting = ssl.create_default_context(cafile=cert)
    with (
        beside(settings) as served,
        socket.create_connection(served._tcp[0], SECONDS) as plain,
        trusting.wrap_socket(plain, server_hostname="localhost") as client,
    ):
        client.sendall(b"abc")
        assert client.recv(3) == b"ABC"


def test_connections_go_on_when_the_configuration_is_exchanged(engine, tmp_path, echo):
    file = tmp_path / "serve.yaml"

    def write(filters: str, listen: str = "127.0.0.1:0") -> None:
        file.write_text(f"engine: {engine.name}\ntcp: [{{listen: {listen}, upstream: {echo.url}, filters: [{filters}]}}]")

    write(UPPER)
    settings = read_configuration(file)[0]
    with beside(settings) as served:
        served._application._source = Source(file)
        with served.connect(0) as old:
            assert said(old, b"abc") == b"ABC"
            write("")
            assert served.reload() == ""
            with served.connect(0) as new:
                assert said(new, b"abc") == b"abc"
            assert said(old, b"abc") == b"ABC"
        write("", "127.0.0.1:1")
        assert served.reload() == "tcp: changed listeners take effect after a restart"


def test_several_processes_beside_http(tmp_path, serve, echo):
    settings = {
        "listen": "127.0.0.1:0",
        "workers": 2,
        "upstream": "http://127.0.0.1:9",
        "tcp": [{"listen": "127.0.0.1:0", "upstream": echo.url, "filters": [UPPER]}],
        "access_log": {"format": "off"},
    }
    served = serve(settings=settings, upstream=None, listen=None)
    port = int(re.search(r", tcp://127.0.0.1:(\d+)", served.log)[1])
    open_ones = [Client(("127.0.0.1", port)) for _ in range(8)]
    assert [said(client, b"abc") for client in open_ones] == [b"ABC"] * 8
    ended = threading.Thread(target=served.stop)
    ended.start()
    time.sleep(0.3)
    for client in open_ones:  # they get their time
        assert said(client, b"abc") == b"ABC"
        with client:
            pass
    ended.join(SECONDS)
    assert served.process.returncode == 0


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"upstream": "app"}, r"tcp\[0\].upstream: .*'app'"),
        ({"upstream": "tcp://x"}, r"tcp\[0\].upstream: 'tcp://x' is not a server: write it as tcp://HOST:PORT"),
        ({"upstream": "tcp://x:70000"}, r"tcp\[0\].upstream"),
        ({"filters": [{"file": UPPER, "match": {"hosts": ["a"]}}]}, r"tcp\[0\].filters\[0\].match: selects HTTP requests"),
        ({"idle_timeout": 0}, r"tcp\[0\].idle_timeout"),
        ({"listens": 1}, r"tcp\[0\].listens: is not known"),
    ],
)
def test_what_is_wrong_is_told(change, complaint):
    settings = tcp("tcp://127.0.0.1:1")
    settings["tcp"][0].update(change)
    with pytest.raises(ConfigError, match=complaint):
        Source(None, settings).load()


def test_requests_of_http_do_not_go_to_servers_of_tcp():
    with pytest.raises(ConfigError, match=r"upstream\.url: requests of HTTP go to http"):
        Source(None, {"upstream": "tcp://127.0.0.1:1"}).load()
    settings = {"upstreams": {"db": "tcp://127.0.0.1:1"}, "routes": [{"upstream": "db"}]}
    with pytest.raises(ConfigError, match=r"routes\[0\]: 'db' has servers of tcp"):
        Source(None, settings).load()


# -- Beside Envoy ------------------------------------------------------------------------------------------------------

ENVOY = """\
admin: {{address: {{socket_address: {{address: 127.0.0.1, port_value: 0}}}}}}
static_resources:
  listeners:
  - name: db
    address: {{socket_address: {{address: 127.0.0.1, port_value: 0}}}}
    filter_chains:
    - filters:
      - name: envoy.filters.network.wasm
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.network.wasm.v3.Wasm
          config:
            name: tcp
            configuration: {{"@type": type.googleapis.com/google.protobuf.StringValue, value: "{configuration}"}}
            vm_config: {{runtime: envoy.wasm.runtime.v8, code: {{local: {{filename: {UPPER}}}}}}}
      - name: envoy.filters.network.tcp_proxy
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy
          stat_prefix: tcp
          cluster: echo
          idle_timeout: 60s
  clusters:
  - name: echo
    connect_timeout: 1s
    load_assignment:
      cluster_name: echo
      endpoints: [{{lb_endpoints: [{{endpoint: {{address: {{socket_address: {{address: 127.0.0.1, port_value: {port}}}}}}}}}]}}]
"""


def conversations(connect: Any, pause: Any) -> list[bytes]:
    """What comes of connections that end in each way."""
    found = []
    with connect() as client, contextlib.suppress(ConnectionError):  # the client ends, then the server
        found += [said(client, b"abc"), said(client, b"de")]
        client.end()
        found.append(client.rest())
    pause(1)
    with connect() as client, contextlib.suppress(ConnectionError):
        found.append(said(client, b"xy"))
        client.abort()
    pause(2)
    return [each for each in found if each]


def lines(log: str) -> list[str]:
    """What the guest has logged, without what depends on how bytes came together."""
    return re.findall(r"tcp: (?:configured|new|downstream|upstream|done|log)[^\n]*", log)


@pytest.mark.parametrize("configuration", ["", "deny"])
def test_as_in_envoy(engine, tmp_path, echo, caplog, configuration):
    caplog.set_level(logging.INFO, "proxywasm_host.guest")
    file = tmp_path / "envoy.yaml"
    file.write_text(ENVOY.format(UPPER=UPPER, configuration=configuration, port=echo.server_address[1]))

    def logged(log: Any) -> Any:
        return lambda number: proxy.wait_for(lambda: lines(log()).count("tcp: log") == number, SECONDS)

    with proxy.running(tmp_path, file, "wasm:info") as envoy:
        theirs = conversations(lambda: Client(("127.0.0.1", envoy.port)), logged(envoy.log.read_text))
        their_lines = lines(envoy.log.read_text())
    own = read_configuration(file)[0]
    own.pop("admin", None)
    with beside(own | {"engine": engine.name}) as served:
        ours = conversations(lambda: served.connect(0), logged(lambda: "\n".join(caplog.messages)))
    assert ours == theirs
    assert theirs == ([] if configuration else [b"ABC", b"DE", b".", b"XY"])
    configured = "tcp: configured, deny "
    their_lines = [line for line in their_lines if configured not in line]  # once for each thread
    assert [line for line in lines("\n".join(caplog.messages)) if configured not in line] == their_lines
    writer = EnvoyWriter(own)
    (tmp_path / "again.yaml").write_text(writer.write())
    assert writer.cannot == []
    assert read_configuration(tmp_path / "again.yaml")[0] == own
