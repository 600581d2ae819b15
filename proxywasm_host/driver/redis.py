"""Redis callouts with the package redis, for both kinds of drivers. Commands and answers pass unchanged.

A command has a connection to itself until it is answered. Connections are pooled by cluster, user and database. The
filter gets a failure if there is no connection or no answer in time, for a wrong password, and for more than one
command in a call. After a failed connection, the next command connects again.

With `Cluster.redis_cluster`, a command goes to the node of its key. Redirections (``MOVED``, ``ASK``) are followed, and
those with ``MOVED`` are stored.
"""

from __future__ import annotations

from typing import Any
from urllib.parse import unquote, urlsplit

from proxywasm_host import remedy

try:
    import anyio
    import redis
    import redis.asyncio
    from redis._parsers import _AsyncRESP2Parser
    from redis.backoff import NoBackoff
    from redis.crc import key_slot
except ModuleNotFoundError as error:
    raise remedy.missing("redis", error) from None

from proxywasm_host.driver import resp
from proxywasm_host.driver.clusters import Cluster, Clusters
from proxywasm_host.driver.in_loop import InLoop
from proxywasm_host.driver.in_threads import in_thread, on_asyncio
from proxywasm_host.runtime.effects import CalloutFailed, RedisCall, RedisCallReply

__all__ = ["AsyncRedisClient", "RedisClient"]

PORT = 6379
HOPS = 5
"""Maximum number of nodes that are tried for a command."""
OF_CONNECTION = frozenset(
    b"AUTH ASKING CLIENT DISCARD EXEC HELLO MONITOR MULTI PSUBSCRIBE PSYNC PUNSUBSCRIBE QUIT READONLY READWRITE RESET"
    b" SELECT SSUBSCRIBE SUBSCRIBE SUNSUBSCRIBE SYNC UNSUBSCRIBE UNWATCH WATCH".split()
)
"""Commands that change the state of a connection. It is closed after them, so that no other filter gets it."""
KEY_AT = {b"EVAL": 3, b"EVALSHA": 3, b"EVAL_RO": 3, b"EVALSHA_RO": 3, b"FCALL": 3, b"FCALL_RO": 3, b"XREAD": -1}
"""Position of a command's key if it is not the first argument. A redirection corrects a wrong guess."""
ASKING = b"*1\r\n$6\r\nASKING\r\n"
Node = tuple[str, int]
FAILURES = (redis.RedisError, OSError, ValueError)


class Nodes:
    """The nodes of one cluster, as named in their answers."""

    def __init__(self, cluster: Cluster) -> None:
        parts = urlsplit(cluster.url)
        self.redirects = cluster.redis_cluster
        """Whether redirections are followed."""
        self.seed: Node = parts.hostname or "", parts.port or PORT
        self._of_slot: dict[int, Node] = {}

    def of(self, words: list[bytes]) -> Node:
        """The node for a command."""
        at = KEY_AT.get(words[0].upper(), 1)
        return self._of_slot.get(key_slot(words[at]), self.seed) if 0 < at < len(words) else self.seed

    def redirected(self, answer: bytes) -> tuple[Node, bool] | None:
        """The node to which an answer redirects, and whether only for this command; ``None`` without redirection."""
        if not answer.startswith((b"-MOVED ", b"-ASK ")):
            return None
        word, slot, address = answer.decode("latin-1").split()
        host, _, port = address.rpartition(":")
        node = host or self.seed[0], int(port)
        if word == "-MOVED":
            self._of_slot[int(slot)] = node
        return node, word == "-ASK"

    def gone(self, node: Node) -> None:
        """Drop an unreachable node. Other nodes will name its replacement."""
        self._of_slot = {slot: other for slot, other in self._of_slot.items() if other != node}


class Search:
    """Finds the node that answers one command. Sending it to `node` inside ``with`` notes a lost connection."""

    asking = False
    """Whether ``ASKING`` must precede the command, because only this command is for `node`."""

    def __init__(self, nodes: Nodes, words: list[bytes]) -> None:
        self.node = nodes.of(words)
        self._nodes = nodes
        self._hops = HOPS if nodes.redirects else 1

    def __enter__(self) -> None:
        self._hops -= 1

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is not None and issubclass(kind, (redis.ConnectionError, OSError)):
            self._nodes.gone(self.node)

    def goes_on(self, answer: bytes) -> bool:
        """Whether the answer redirects the command; then `node` is the new target."""
        another = self._nodes.redirected(answer) if self._nodes.redirects else None
        if another is None or not self._hops:
            return False
        self.node, self.asking = another
        return True


def parser(most: int) -> type:
    """A parser for redis-py that returns answers undecoded."""

    class Parser(_AsyncRESP2Parser):  # type: ignore[misc]
        async def _read_response(self, disable_decoding: bool = False, **more: Any) -> Any:
            if not disable_decoding:
                return await super()._read_response(disable_decoding, **more)
            reading = resp.reply(most)
            wanted = next(reading)
            while True:
                part = await (self._readline() if wanted == resp.LINE else self._read(wanted))
                try:
                    wanted = reading.send(part)
                except StopIteration as stop:
                    return stop.value

    return Parser


def database(callout: RedisCall, cluster: Cluster) -> int:
    """The number of the database. Raises: ValueError."""
    return int(callout.options.get("db") or urlsplit(cluster.url).path.strip("/") or 0)


def pool_options(callout: RedisCall, cluster: Cluster, node: Node) -> dict[str, Any]:
    """Options of a connection pool. Raises: ValueError."""
    parts = urlsplit(cluster.url)
    user, password = callout.username, callout.password
    if not password:
        user, password = unquote(parts.username or "").encode(), unquote(parts.password or "").encode()
    result: dict[str, Any] = {
        "host": node[0],
        "port": node[1],
        "db": database(callout, cluster),
        "username": user.decode() or None,
        "password": password.decode() or None,
        "socket_connect_timeout": cluster.connect_timeout,
        "protocol": 2,
        "retry": redis.asyncio.retry.Retry(NoBackoff(), 0),
        "socket_timeout": None,
        "parser_class": parser(cluster.max_response),
        "max_connections": cluster.max_connections,
        "timeout": cluster.connect_timeout,
    }
    if parts.scheme == "rediss":
        certificate, key = cluster.certificate or (None, None)
        result |= {
            "connection_class": redis.asyncio.SSLConnection,
            "ssl_ca_certs": cluster.verify if isinstance(cluster.verify, str) else None,
            "ssl_cert_reqs": "required" if cluster.verify else "none",
            "ssl_check_hostname": bool(cluster.verify),
            "ssl_certfile": certificate,
            "ssl_keyfile": key,
        }
    return result


def seconds_of(callout: RedisCall, cluster: Cluster) -> float | None:
    """The timeout of a command in seconds, or ``None``."""
    return callout.timeout / 1000 if callout.timeout > 0 else cluster.timeout


class AsyncRedisClient:
    """Makes Redis callouts in an event loop. redis-py supports only asyncio; on trio, another loop makes them."""

    _elsewhere: RedisClient | None = None

    def __init__(self, clusters: Clusters) -> None:
        self.clusters = clusters
        self._pools: dict[tuple[Any, ...], Any] = {}
        self._nodes: dict[Cluster, Nodes] = {}

    async def __call__(self, callout: RedisCall, /) -> RedisCallReply | CalloutFailed:
        """Send one command. Its result or its failure is the reply."""
        if not on_asyncio():
            self._elsewhere = self._elsewhere or RedisClient(self.clusters)
            return await in_thread(self._elsewhere, callout)  # type: ignore[return-value]
        try:
            cluster, words = self.clusters[callout.cluster], resp.command(callout.query)
            with anyio.fail_after(seconds_of(callout, cluster)):
                return RedisCallReply(await self._ask(callout, cluster, words))
        except (*FAILURES, KeyError, TimeoutError) as error:
            return CalloutFailed(f"{type(error).__name__}: {error}")

    async def _ask(self, callout: RedisCall, cluster: Cluster, words: list[bytes]) -> bytes:
        search = Search(self._nodes.setdefault(cluster, Nodes(cluster)), words)
        while True:
            with search:
                answer = await self._at(search.node, callout, cluster, words, asking=search.asking)
            if not search.goes_on(answer):
                return answer

    async def _at(self, node: Node, callout: RedisCall, cluster: Cluster, words: list[bytes], *, asking: bool) -> bytes:
        pool = self._pool(callout, cluster, node)
        query = callout.query if callout.query.endswith(resp.END) else callout.query + resp.END
        connection = await pool.get_connection()
        done = False
        try:
            if asking:
                await connection.send_packed_command([ASKING])
                await connection.read_response()
            await connection.send_packed_command([query])
            answer: bytes = await connection.read_response(disable_decoding=True)
            done = words[0].upper() not in OF_CONNECTION
            return answer
        finally:
            with anyio.CancelScope(shield=True):
                if not done:
                    await connection.disconnect(nowait=True)
                await pool.release(connection)

    def _pool(self, callout: RedisCall, cluster: Cluster, node: Node) -> Any:
        """The connection pool for a callout. Raises: ValueError."""
        key = cluster, node, callout.username, callout.password, database(callout, cluster)
        if key not in self._pools:
            self._pools[key] = redis.asyncio.BlockingConnectionPool(**pool_options(callout, cluster, node))
        return self._pools[key]

    async def aclose(self) -> None:
        """Close all connections."""
        for pool in self._pools.values():
            await pool.disconnect()
        if self._elsewhere is not None:
            self._elsewhere.close()


class RedisClient(InLoop[RedisCall, RedisCallReply]):
    """Makes Redis callouts for threads; several may use it."""

    def __init__(self, clusters: Clusters) -> None:
        super().__init__(AsyncRedisClient(clusters))
