"""TCP through a configuration of Kong: routes by address, ``preread`` of plugins, and what closes a connection."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import threading

import pytest

from proxywasm_host.errors import ConfigError
from proxywasm_host.kong.config import read
from proxywasm_host.kong.environment import Environment
from proxywasm_host.kong.router import route_of, stream_routes
from proxywasm_host.kong.setup import Setup
from tests.kong.conftest import PLUGINS, python_server
from tests.serve.conftest import Served
from tests.serve.test_tcp import Echo

HEAD = '_format_version: "3.0"\n'
SERVICE = HEAD + "services:\n- url: tcp://127.0.0.1:9\n"
DOES = ("pass", "wait", "exit", "fail", "ask", "deny", "refused")
"""What the plugins of each listener do."""


def route(does, port):
    gate = f"{{name: gate, protocols: [tcp], config: {{does: {'pass' if does in ('deny', 'refused') else does}}}}}"
    server = {"deny": "{deny: true}", "refused": "{ask: true}"}.get(does, "{}")
    plugins = f"[{gate}, {{name: py_gate, protocols: [tcp], config: {server}}}]"
    return f"  - {{name: {does}, protocols: [tcp], destinations: [{{port: {port}}}], plugins: {plugins}}}\n"


def free_ports(count):
    taken = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [each.getsockname()[1] for each in taken]
    for each in taken:
        each.close()
    return ports


@pytest.fixture(scope="module")
def gateway(tmp_path_factory):
    """A gateway before an echo, with a listener for each of `DOES`, and one that no route fits."""
    folder, echo = tmp_path_factory.mktemp("streams"), Echo()
    threading.Thread(target=echo.serve_forever, kwargs={"poll_interval": 0.02}).start()
    ports = dict(zip((*DOES, "nobody"), free_ports(len(DOES) + 1), strict=True))
    text = f"{HEAD}services:\n- name: echo\n  url: {echo.url}\n  routes:\n" + "".join(route(does, ports[does]) for does in DOES)
    (folder / "kong.yaml").write_text(text)
    listen = ", ".join(f"127.0.0.1:{port} reuseport backlog=100" for port in ports.values())
    environment = {**os.environ, **python_server(folder), "KONG_LUA_PACKAGE_PATH": f"{PLUGINS}/lua/?.lua", "KONG_STREAM_LISTEN": listen}
    served = Served(folder, ["--config", str(folder / "kong.yaml"), "--listen", "127.0.0.1:0"], environment)
    served.ports, served.echo = ports, echo
    yield served
    served.stop(signal.SIGTERM)
    echo.shutdown()
    echo.server_close()


def said(gateway, does):
    """What comes back for a message, up to the end."""
    with socket.create_connection(("127.0.0.1", gateway.ports[does]), timeout=20) as client:
        got = b""
        try:
            client.sendall(b"hello")
            client.shutdown(socket.SHUT_WR)
            while data := client.recv(100):
                got += data
        except OSError as error:  # it may be closed at any time
            assert not isinstance(error, TimeoutError)
        return got


@pytest.mark.parametrize("does", ["pass", "wait"])
def test_plugins_of_each_kind_see_a_connection_and_let_it_go_on(gateway, does):
    assert said(gateway, does) == b"hello."
    gateway.wait_for(f"gate tcp 127.0.0.1 {does}")
    gateway.wait_for(f"py_gate saw {does} from 127.0.0.1")
    gateway.wait_for(f"gate logs {does}")
    gateway.wait_for("py_gate logs")


@pytest.mark.parametrize(
    ("does", "why"),
    [
        ("exit", "gate logs exit"),
        ("fail", "plugin gate failed in preread: .*the gate is broken"),
        ("ask", "plugin gate failed in preread: .*function cannot be called in preread phase"),
        ("deny", "py_gate saw pass"),
        ("refused", "plugin py_gate failed in preread: .*kong.request.get_path is not for connections"),
        ("nobody", "no route fits the connection of 127.0.0.1"),
    ],
)
def test_what_closes_a_connection(gateway, does, why):
    before = gateway.echo.connections
    assert said(gateway, does) == b""
    gateway.wait_for(why)
    assert gateway.echo.connections == before


def test_the_more_a_route_says_the_earlier_it_comes():
    def conditions(*given):
        return [{"ip": ip, "port": port} for ip, port in given]

    routes = [
        {"name": name, "protocols": ["tcp"], "sources": sources, "destinations": destinations}
        for name, sources, destinations in (
            ("port", None, conditions((None, 9000))),
            ("net", conditions(("10.0.0.0/8", None), ("::1", None)), None),
            ("both", conditions(("10.1.0.0/16", None)), conditions((None, 9000))),
        )
    ]
    ordered = stream_routes([*routes, {"name": "http", "protocols": ["http"]}])
    found = [
        route_of(ordered, (client, 1), ("127.0.0.1", port))
        for client, port in (("10.1.2.3", 9000), ("10.2.2.3", 9000), ("10.2.2.3", 1), ("::1", 1), ("192.0.2.1", 1))
    ]
    assert [each and each["name"] for each in found] == ["both", "port", "net", "net", None]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("  routes: [{protocols: [tcp]}]", "4: services[0].routes[0]: must set one of 'sources', 'destinations'"),
        ("  routes: [{protocols: [tcp, http], sources: [{port: 1}]}]", "4: services[0].routes[0]: protocols: a route is for tcp, or for protocols of HTTP"),
        ("  routes: [{protocols: [tcp], sources: [{port: 1}], paths: [/]}]", "4: services[0].routes[0].paths: is for HTTP, not for tcp"),
        ("  routes: [{paths: [/], sources: [{port: 1}]}]", "4: services[0].routes[0].sources: is for tcp, not for HTTP"),
        ("  routes: [{paths: [/]}]", "4: services[0].routes[0]: its protocols do not fit its service, which has tcp"),
        ("  routes: [{protocols: [tcp], sources: [{ip: x}]}]", "4: services[0].routes[0].sources[0].ip: 'x' is not an address or a network"),
        ("  routes: [{protocols: [tcp], sources: [{}]}]", "4: services[0].routes[0].sources[0]: at least one of ip and port must be given"),
        ("  routes: [{protocols: [tls], snis: [a]}]", "is not supported"),
    ],
)
def test_what_a_route_for_connections_may_not_say(tmp_path, text, problem):
    (tmp_path / "kong.yaml").write_text(SERVICE + text)
    with pytest.raises(ConfigError) as refused:
        read(tmp_path / "kong.yaml")
    assert problem in str(refused.value)


def test_a_listener_has_one_service(tmp_path):
    text = HEAD + "services:\n"
    text += "".join(f"- name: s{n}\n  url: tcp://127.0.0.1:9\n  routes: [{{protocols: [tcp], destinations: [{{ip: 127.0.0.{n}, port: 9000}}]}}]\n" for n in (1, 2))
    (tmp_path / "kong.yaml").write_text(text)
    setup = Setup(tmp_path / "kong.yaml", Environment.read({"KONG_STREAM_LISTEN": "127.0.0.1:9000, 127.0.0.2:9000"}), [])
    names = {service["id"]: service["name"] for service in setup.configuration.of("services")}
    assert [names[service] for _, service in setup.listeners] == ["s1", "s2"]
    (tmp_path / "off.yaml").write_text(text.replace("- name: s1\n", "- name: s1\n  enabled: false\n"))
    setup = Setup(tmp_path / "off.yaml", Environment.read({"KONG_STREAM_LISTEN": "0.0.0.0:9000"}), [])
    assert [service for _, service in setup.listeners] == [
        service["id"] for service in setup.configuration.of("services") if service["name"] == "s2"
    ]
    with pytest.raises(ConfigError, match=r"kong.yaml:8: services\[1\].routes\[0\]: is not supported: all routes of a listener"):
        Setup(tmp_path / "kong.yaml", Environment.read({"KONG_STREAM_LISTEN": "0.0.0.0:9000"}), [])


@pytest.mark.parametrize(("given", "problem"), [("9000", "'9000' is not a listener"), ("127.0.0.1:9000 ssl", "'ssl' of 127.0.0.1:9000 is not supported: only TCP"), ("127.0.0.1:70000", "is not a listener")])
def test_what_is_no_listener(given, problem):
    with pytest.raises(ConfigError, match=problem):
        Environment.read({"KONG_STREAM_LISTEN": given})


def test_a_connection_to_an_upstream_without_targets_is_closed(tmp_path):
    """As one whose targets are all disabled."""
    (port,) = free_ports(1)
    (tmp_path / "kong.yaml").write_text(f"""{HEAD}
upstreams:
- {{name: pool, targets: [{{target: '127.0.0.1:9', weight: 0}}]}}
services:
- {{name: s, protocol: tcp, host: pool, port: 1, routes: [{{protocols: [tcp], destinations: [{{port: {port}}}]}}]}}
""")
    environment = {**os.environ, "KONG_STREAM_LISTEN": f"127.0.0.1:{port}"}
    served = Served(tmp_path, ["--config", str(tmp_path / "kong.yaml"), "--listen", "127.0.0.1:0"], environment)
    try:
        for _ in range(2):
            with socket.create_connection(("127.0.0.1", port), timeout=20) as client, contextlib.suppress(ConnectionError):
                assert client.recv(1) == b""
        assert served.process.poll() is None
    finally:
        served.stop(signal.SIGTERM)
