"""Redis callouts and gRPC streams of filters in Python: packed, on every engine, and under CPython."""

from __future__ import annotations

import json

from proxywasm_host.testing import FAIL, NEVER, GrpcStatus, RedisError, Response, fake_redis, later

REDIS = """
from proxywasm import HttpFilter, Response, gather, register
from proxywasm.redis import Redis, RedisError, RedisUnavailable

class Asks(HttpFilter):
    def on_configure(self, config):
        self.redis = Redis("cache", decode_responses=True)
        self.bytes = Redis("cache")

    async def on_request_headers(self, request):
        name, *arguments = await request.json()
        client = self.bytes if request.path == "/bytes" else self.redis
        try:
            answer = await getattr(client, name)(*arguments)
        except RedisUnavailable as error:
            return Response(503, body=str(error))
        except RedisError as error:
            return Response(400, body=str(error))
        return Response(200, body=repr(answer))

register(Asks)
"""


def test_commands_of_redis(script, harness):
    f = script(REDIS)
    f.redis["cache"] = fake_redis(f.clock)

    def ask(*command, path="/"):
        r = f.post(path, body=json.dumps(command).encode())
        assert r.logs.error == []
        return r.response.text if r.status == 200 else (r.status, r.response.text)

    assert ask("get", "k") == "None"
    assert ask("set", "k", "ü") == "'OK'"
    assert (ask("get", "k"), ask("get", "k", path="/bytes")) == ("'ü'", repr("ü".encode()))
    assert (ask("incr", "n"), ask("incrby", "n", 41), ask("incrbyfloat", "f", 1.5)) == ("1", "42", "'1.5'")
    assert ask("hset", "h", "a", 1, "b", "x") == "2"
    assert ask("hgetall", "h") == "{'a': '1', 'b': 'x'}"
    assert ask("rpush", "l", "a", "b") == "2"
    assert ask("lrange", "l", 0, -1) == "['a', 'b']"
    assert ask("mget", "k", "nothing") == "['ü', None]"
    assert ask("eval", "return {1, {'x', false}}", 0) == "[1, ['x', None]]"
    assert ask("execute", "EXISTS", "k", "l", "x") == "2"
    assert ask("delete", "k", "l", "x") == "2"
    status, words = ask("lpush", "n", "v")
    assert (status, words.split()[0]) == (400, "WRONGTYPE")
    f.redis["cache"] = FAIL
    assert ask("get", "k") == (503, "no reply of Redis to GET")


def test_a_key_that_expires(script):
    f = script(
        "from proxywasm import HttpFilter, Response, register\nfrom proxywasm.redis import Redis\n"
        "redis = Redis('cache')\n"
        "class F(HttpFilter):\n"
        "    async def on_request_headers(self, request):\n"
        "        first = await redis.set('k', request.path, ex=60, nx=True)\n"
        "        return Response(200, body=[first, (await redis.get('k')).decode(), await redis.ttl('k')])\n"
        "register(F)\n"
    )
    f.redis["cache"] = fake_redis(f.clock)
    assert f.get("/a").response.json() == ["OK", "/a", 60]
    assert f.get("/b").response.json() == [None, "/a", 60]
    f.clock.advance(60)
    assert f.get("/c").response.json() == ["OK", "/c", 60]


def test_a_user_a_password_and_a_database(script):
    f = script(
        "from proxywasm import HttpFilter, Response, register\nfrom proxywasm.redis import Redis\n"
        "class F(HttpFilter):\n"
        "    def on_configure(self, config):\n"
        "        self.redis = Redis('cache', username='u', password='p', db=3, timeout=0.5)\n"
        "    async def on_request_headers(self, request):\n"
        "        return Response(200, body=await self.redis.ping())\n"
        "register(F)\n"
    )
    f.redis["cache"] = "PONG"
    assert f.get("/").response.text == "PONG"
    [call] = f.callouts
    effect = call.effect
    assert (effect.username, effect.password, effect.timeout, effect.options) == (b"u", b"p", 500, {"db": "3"})
    assert call.command == [b"PING"]


def test_several_commands_at_once_while_the_body_waits(script):
    f = script(
        "from proxywasm import HttpFilter, gather, register\nfrom proxywasm.redis import Redis\n"
        "redis = Redis('cache', timeout=5)\n"
        "class F(HttpFilter):\n"
        "    async def on_request_headers(self, request):\n"
        "        a, b = await gather(redis.get('a'), self.call('web', 'GET', '/'))\n"
        "        request.headers['x'] = a.decode() + b.text\n"
        "        request.set_body((await request.body()).upper())\n"
        "register(F)\n"
    )
    f.redis["cache"] = later(2, "1")
    f.http["web"] = later(1, Response(200, {}, b"2"))
    r = f.post("/", chunks=[b"one ", b"two ", b"three"])
    assert (r.took, r.upstream.headers["x"], r.upstream.body) == (2, "12", b"ONE TWO THREE")


def test_answers_of_redis_that_go_wrong(script):
    f = script(REDIS)
    f.redis["cache"] = lambda call: RedisError("ERR " + call.command[0].decode())
    assert f.post("/", body=json.dumps(["get", "k"]).encode()).response.text == "ERR GET"
    deep = [1]
    for _ in range(400):
        deep = [deep]
    f.redis["cache"] = lambda call: deep if call.command[1] == b"deep" else "fine"
    assert f.post("/", body=json.dumps(["get", "deep"]).encode()).status in (200, 500)
    r = f.post("/", body=json.dumps(["get", {}]).encode())
    assert (r.status, r.logs.error[0].splitlines()[-1]) == (
        500,
        "TypeError: the arguments of a Redis command are text, bytes or numbers, not {}",
    )
    assert f.post("/", body=json.dumps(["get", "k"]).encode()).response.text == "'fine'"


GRPC = """
from proxywasm import HttpFilter, Response, create_task, log, register

class Streams(HttpFilter):
    async def on_request_headers(self, request):
        stream = self.grpc_stream("rpc", "test.Echo", "Stream", metadata={"x-a": "1"})
        for word in request.headers["words"].split():
            stream.send(word)
        if request.path == "/cancel":
            first = await stream.receive()
            stream.cancel()
            return Response(200, body=[first.decode(), await stream.receive(), stream.status])
        stream.close()
        heard = []
        async for message in stream:
            heard.append(message.decode())
        return Response(200, body=[heard, stream.status, stream.details, dict(stream.metadata), dict(stream.trailers)])

register(Streams)
"""


def test_a_grpc_stream(script):
    f = script(GRPC)
    f.grpc["rpc", "test.Echo", "Stream"] = lambda call: [b"echo of " + call.message]
    with f.stream("GET", headers={"words": "a b"}) as s:
        s.send()
        [call] = f.callouts
        assert (call.kind, call.service, call.method) == ("grpc stream", "test.Echo", "Stream")
        assert s.result.response is None
        call.reply([b"last", GrpcStatus(0, "")])
    assert s.result.response.json() == [["echo of a", "echo of b", "last"], 0, "", {}, {}]


def test_a_grpc_stream_that_is_refused(script):
    f = script(GRPC)
    f.grpc["rpc"] = GrpcStatus(7, "not you")
    assert f.get("/", {"words": "a"}).response.json() == [[], 7, "not you", {}, {}]


def test_a_grpc_stream_that_is_cancelled(script):
    f = script(GRPC)
    f.grpc["rpc"] = lambda _: [b"one", b"two"]
    assert f.get("/cancel", {"words": "a"}).response.json() == ["one", None, 1]
    assert f.callouts[-1].cancelled


def test_a_grpc_stream_ends_with_its_request(script):
    f = script(GRPC)
    f.grpc["rpc"] = NEVER
    with f.stream("GET", headers={"words": "a"}) as s:
        s.send()
        assert not f.callouts[-1].cancelled
    assert f.callouts[-1].cancelled
