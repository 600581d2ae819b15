"""Redis callouts and gRPC streams of packed filters to a real redis-server and a real gRPC server, in a driver."""

from __future__ import annotations

import threading
from types import SimpleNamespace

import proxywasm_pack
import pytest

from proxywasm_host import Host, Services
from proxywasm_host.driver.clusters import Cluster, Clusters
from proxywasm_host.driver.threaded import ThreadDriver
from tests.driver.test_redis import Server
from tests.grpc_services import GrpcServer


@pytest.fixture
def logged(engine, tmp_path):
    """A function: what a script logs for a cluster at this URL, until it says ``done``."""

    def run(source, url):
        path = tmp_path / "filter.py"
        path.write_text(source)
        messages, done = [], threading.Event()

        def log(line):
            messages.append(line.message)
            if line.message == "done" or line.level >= 4:
                done.set()

        with Host(engine, services=Services(log=SimpleNamespace(log=log), clusters=Clusters({"up": Cluster(url)}))) as host:
            host.load_plugin(proxywasm_pack.pack(path), configuration="{}")
            with ThreadDriver(host):
                assert done.wait(20), messages
        return messages

    return run


REDIS = """
from proxywasm import HttpFilter, create_task, gather, log, register
from proxywasm.redis import Redis, RedisError

class Asks(HttpFilter):
    def on_configure(self, config):
        self.redis = Redis("up", username="anna", password="secret", db=3, decode_responses=True)
        create_task(self.ask())

    async def ask(self):
        log.info("%r", await self.redis.execute("ACL", "WHOAMI"))
        log.info("%r", await gather(self.redis.set("k", "ü" * 3, ex=60), self.redis.get("k"), self.redis.ttl("k")))
        log.info("%r", await self.redis.hset("h", "a", 1))
        log.info("%r", await self.redis.hgetall("h"))
        log.info("%r", await self.redis.eval("return {KEYS[1], {ARGV[1], false}}", 1, "k", "v"))
        try:
            await self.redis.lpush("k", 1)
        except RedisError as error:
            log.info("%s", error)
        log.info("done")

register(Asks)
"""


def test_a_redis_server(logged, tmp_path):
    server = Server(tmp_path)
    try:
        server.admin.acl_setuser("anna", enabled=True, passwords=["+secret"], keys=["*"], commands=["+@all"])
        assert logged(REDIS, server.url) == [
            "'anna'",
            "['OK', 'üüü', 60]",
            "1",
            "{'a': '1'}",
            "['k', ['v', None]]",
            "WRONGTYPE Operation against a key holding the wrong kind of value",
            "done",
        ]
        server.admin.select(3)
        assert server.admin.execute_command("GET", "k") == "üüü".encode()
    finally:
        server.stop()


GRPC = """
from proxywasm import HttpFilter, create_task, log, register

class Asks(HttpFilter):
    def on_configure(self, config):
        create_task(self.ask())

    async def ask(self):
        stream = self.grpc_stream("up", "test.Echo", "StreamEcho", metadata={"x-a": "1"})
        stream.send("one")
        log.info("%s", (await stream.receive()).decode())
        log.info("%s", stream.metadata["x-begin"])
        stream.send(b"two", end=True)
        async for message in stream:
            log.info("%s", message.decode())
        log.info("%s %s", stream.status, stream.trailers["x-end"])
        refused = self.grpc_stream("up", "test.Echo", "StreamRefuse")
        log.info("%r %s %s", await refused.receive(), refused.status, refused.details)
        endless = self.grpc_stream("up", "test.Echo", "StreamHang")
        log.info("%s", (await endless.receive()).decode())
        endless.cancel()
        reply = await self.grpc("up", "test.Echo", "Echo", b"unary")
        log.info("%s %s", reply.status, reply.message.decode())
        log.info("done")

register(Asks)
"""


def test_a_grpc_server(logged):
    server = GrpcServer()
    try:
        assert logged(GRPC, server.url) == [
            "echo of one",
            "1",
            "echo of two",
            "0 2",
            "None 7 not you",
            "one",
            "0 unary",
            "done",
        ]
        assert server.services.cancelled.wait(5)
        method, metadata, message = server.seen[0]
        assert (method, metadata["x-a"], message) == ("/test.Echo/StreamEcho", "1", b"one")
    finally:
        server.stop()
