"""What plugins wait for: sleep, timers, HTTP, connections. The server is real; sleeping takes no time here."""

from __future__ import annotations

import http.server
import socket
import socketserver
import threading

import pytest

from proxywasm_host.kong.plugin import Close, Connect, HttpRequest, PluginFailed, Sleep, StartTimer
from tests.kong.conftest import datagrams_answered
from tests.kong.lua.support import Gateway, World, plugin_folder, request
from tests.kong.lua.test_pdk import HANDLER, SCHEMA


class Web(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        body = self.rfile.read(int(self.headers.get("content-length", 0)))
        self.send_response(202)
        self.send_header("X-Twice", "1")
        self.send_header("X-Twice", "2")
        self.end_headers()
        self.wfile.write(f"{self.path} {self.headers['x-a']} ".encode() + body)

    def log_message(self, *_):
        pass


class Redis(socketserver.StreamRequestHandler):
    """Knows SET, GET and nothing else."""

    def handle(self):
        stored = {}
        while line := self.rfile.readline():
            words = []
            for _ in range(int(line[1:])):
                size = int(self.rfile.readline()[1:])
                words.append(self.rfile.read(size + 2)[:-2])
            if words[0] == b"SET":
                stored[words[1]] = words[2]
                self.wfile.write(b"+OK\r\n")
            elif words[0] == b"GET":
                value = stored.get(words[1])
                self.wfile.write(b"$-1\r\n" if value is None else b"$%d\r\n%s\r\n" % (len(value), value))
            else:
                self.wfile.write(b"-ERR unknown command\r\n")


@pytest.fixture(scope="module")
def ports():
    servers = [http.server.ThreadingHTTPServer(("127.0.0.1", 0), Web), socketserver.ThreadingTCPServer(("127.0.0.1", 0), Redis)]
    for server in servers:
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    yield [server.server_address[1] for server in servers]
    for server in servers:
        server.shutdown()
        server.server_close()


@pytest.fixture(scope="module")
def gateway(tmp_path_factory):
    folder = tmp_path_factory.mktemp("plugins")
    plugin_folder(folder, "probe", HANDLER, SCHEMA)
    return Gateway(folder)


@pytest.fixture
def call(gateway):
    plugin = gateway.plugins.load("probe")

    def run(code, phase="access"):
        world = gateway.world = World()
        run.world, run.context = world, request(world)
        run.context.phase = phase
        world.perform(plugin.run(phase, run.context, plugin.check({"code": code})), run.context)
        return run.context.shared.get("result")

    return run


def test_sleep(call):
    assert call("local t = 1 ngx.sleep(0.5) t = t + 1 pcall(function() ngx.sleep(2) t = t + 1 end) return t") == 3
    assert call.world.effects == [Sleep(0.5), Sleep(2)]


def test_waiting_in_coroutines_of_the_plugin(call):
    code = """
    local seen = {}
    local c = coroutine.wrap(function() for i = 1, 2 do ngx.sleep(i) coroutine.yield("y" .. i) end end)
    seen[1] = c()
    seen[2] = c()
    local t = ngx.thread.spawn(function(a) ngx.sleep(3) return a, "b" end, "a")
    local ok, a, b = ngx.thread.wait(t)
    return seen[1], seen[2], ok, a, b
    """
    assert call(code) == ["y1", "y2", True, "a", "b"]
    assert call.world.effects == [Sleep(1), Sleep(2), Sleep(3)]


def test_the_body_is_read_once(call):
    assert call("return kong.request.get_raw_body(), #kong.request.get_raw_body()") == ["", 0]
    assert len(call.world.effects) == 1


@pytest.mark.parametrize("phase", ["header_filter", "body_filter"])
def test_what_may_not_wait(call, gateway, phase):
    with pytest.raises(PluginFailed, match=f"API disabled in the context of {phase}: it may not wait \\(sleep\\)"):
        call("ngx.sleep(1)", phase)


def test_timers_run_later_without_a_request(call):
    code = """
    local function later(premature, a) kong.log.notice(tostring(premature), a, kong.request == nil, ngx.get_phase()) ngx.sleep(7) error("in a timer") end
    return ngx.timer.at(5, later, "x")
    """
    assert call(code) is True
    [timer] = call.world.timers
    assert (type(timer), timer.seconds, call.world.lines) == (StartTimer, 5, [])
    with pytest.raises(PluginFailed, match="in a timer"):
        call.world.run_timers()
    assert call.world.effects[-1] == Sleep(7)
    assert call.world.lines == ["info: [probe] falsexfalsetimer"]


def test_timers_of_a_phase_that_may_not_wait_start_with_the_next(call):
    call("ngx.timer.at(1, function() end)", "header_filter")
    assert call.world.timers == []
    call("return 1", "log")
    assert [timer.seconds for timer in call.world.timers] == [1]


def test_http_by_callouts(call, ports):
    code = f"""
    local httpc = require("resty.http").new()
    httpc:set_timeout(2500)
    local res, err = httpc:request_uri("http://127.0.0.1:{ports[0]}/in", {{ method = "POST", query = {{ q = "a b" }}, body = "hello", headers = {{ ["X-A"] = "1" }} }})
    return res.status, res.headers["x-twice"], res.body, err
    """
    assert call(code) == [202, ["1", "2"], "/in?q=a%20b 1 hello", None]
    [effect] = call.world.effects
    assert effect == HttpRequest("POST", f"http://127.0.0.1:{ports[0]}/in?q=a%20b", [(b"X-A", b"1")], b"hello", 2.5)


def test_http_that_fails(call):
    assert call("return require('resty.http').new():request_uri('http://127.0.0.1:1/')") == [None, "connection refused"]
    assert call("return require('resty.http').new():request_uri('gopher://x')") == [None, "bad uri: gopher://x"]


def test_connections(call, ports):
    code = f"""
    local red = require("resty.redis"):new()
    red:set_timeout(1500)
    assert(red:connect("127.0.0.1", {ports[1]}))
    local set, null, bad, why = red:set("k", "v\\r\\nw"), red:get("none"), red:nothing()
    red:init_pipeline()
    red:get("k")
    red:get("k")
    local both = red:commit_pipeline()
    red:set_keepalive()
    return set, null == ngx.null, bad, why, both
    """
    assert call(code) == ["OK", True, None, "ERR unknown command", ["v\r\nw", "v\r\nw"]]
    assert call.world.effects[0] == Connect("127.0.0.1", ports[1], 1.5, verify=False)
    assert isinstance(call.world.effects[-1], Close)


def test_a_connection_is_of_one_run(call, ports):
    call(f"kept = ngx.socket.tcp() assert(kept:connect('127.0.0.1', {ports[0]}))")
    assert call("return kept:send('x')") == [None, "bad request"]
    assert call("local all = { kept:receive() } kept:close() return all[2]") == "bad request"


def test_a_connection_line_by_line(call, ports):
    code = f"""
    local socket = ngx.socket.tcp()
    assert(socket:connect("127.0.0.1", {ports[0]}))
    socket:send({{ "POST /x HTTP/1.0\\r\\n", "content-length: 3\\r\\n\\r\\nabc" }})
    local status = socket:receive()
    local head = socket:receiveuntil("\\r\\n\\r\\n")()
    local some = socket:receive(3)
    local rest = socket:receive("*a")
    local nothing, why = socket:receive()
    socket:close()
    return status, head:find("X-Twice: 2", 1, true) ~= nil, some, rest, why, select(2, socket:send("x"))
    """
    assert call(code) == ["HTTP/1.0 202 Accepted", True, "/x ", "None abc", "closed", "closed"]


def test_a_queue_sends_batches_and_tries_again(call):
    code = """
    local Queue = require "kong.tools.queue"
    local config = { queue = { max_batch_size = 2, max_coalescing_delay = 0.1, max_retry_time = 60, initial_retry_delay = 0.25 } }
    local params, tries = Queue.get_plugin_params("probe", config, "q"), 0
    for i = 1, 3 do
      Queue.enqueue(params, function(_, entries)
        tries = tries + 1
        if tries == 1 then return nil, "not now" end
        ngx.log(ngx.NOTICE, table.concat(entries, "+"))
        return true
      end, {}, "e" .. i)
    end
    return Queue.exists("q")
    """
    assert call(code) is True
    call.world.run_timers()
    assert call.world.lines == [
        "warn: [probe] [probe plugin probe] queue q: handler could not process entries: not now",
        "info: e1+e2",
        "info: e3",
    ]
    assert Sleep(0.25) in call.world.effects


def test_datagrams(call):
    with socket.socket(type=socket.SOCK_DGRAM) as server:
        server.bind(("127.0.0.1", 0))
        server.settimeout(10)
        port = server.getsockname()[1]
        code = f"""
        local s = ngx.socket.udp()
        s:settimeout(2000)
        local before = {{ s:send("x") }}
        return before[2], s:setpeername("127.0.0.1", {port}), s:send({{ "a", 1, {{ "b" }} }}), s:close(), (select(2, s:close()))
        """
        assert call(code) == ["closed", True, True, True, "closed"]
        assert server.recv(100) == b"a1b"
    assert [type(effect).__name__ for effect in call.world.effects] == ["Connect", "Send", "Close"]
    assert call.world.effects[0] == Connect("127.0.0.1", port, 2.0, datagrams=True)


def test_a_datagram_comes_back(call):
    with datagrams_answered() as port:
        code = f"""
        local s = ngx.socket.udp()
        s:setpeername("127.0.0.1", {port})
        s:send("abc")
        return s:receive(), s:close()
        """
        assert call(code) == ["cba", True]
