"""Shared data, queues and metrics of many machines, in Redis or Valkey, with the package redis.

Each change is one script, so it is atomic, and nothing can happen between compare and swap. Keys begin with a prefix:
``data:VM_ID:KEY`` is a hash of a value and its number, ``queue:TOKEN`` a list of messages, ``notes:TOKEN`` a list of
notes for which processes wait, ``metrics:NODE`` a hash.

A hostcall waits at most ``timeout`` seconds for an answer. After a missing answer, hostcalls fail at once for a second.
Redis limits the stored data (``maxmemory``); beyond that, guests get INTERNAL_FAILURE.
"""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Callable, Iterator
from hashlib import blake2b
from typing import Any

from proxywasm_host import remedy

try:
    import redis
    from redis.backoff import NoBackoff
    from redis.retry import Retry
except ModuleNotFoundError as error:
    raise remedy.missing("redis", error) from None

from proxywasm_host.services.quota import QuotaExceeded
from proxywasm_host.services.shared.bundle import Shared
from proxywasm_host.services.shared.listener import EACH, Listener, ListeningQueues
from proxywasm_host.services.shared.metrics import Changes, SharedMetrics, Totals
from proxywasm_host.services.shared_queue import UnknownQueue
from proxywasm_host.services.unavailable import Breaker, ServiceUnavailable

__all__ = ["RedisMetrics", "RedisSharedData", "RedisSharedQueues", "opened"]

TIMEOUT = 0.25
"""Seconds for an answer, and for a connection."""
PREFIX = "proxywasm:"
KEPT = 24 * 3600
"""Seconds after which the metrics of a vanished node expire."""
LAST = 0x7FFFFFFF
"""The highest token."""
MOST = 0x7FFFFFFFFFFFFFFF
"""The largest number that Redis adds."""

SET = """
local before = redis.call('HGET', KEYS[1], 'cas')
if before and ARGV[2] ~= '0' and before ~= ARGV[2] then return 0 end
local cas = redis.call('INCR', KEYS[2])
if cas > 4294967295 then cas = 1 redis.call('SET', KEYS[2], '1') end
redis.call('HSET', KEYS[1], 'value', ARGV[1], 'cas', cas)
if ARGV[3] ~= '0' then redis.call('PEXPIRE', KEYS[1], ARGV[3]) end
return 1
"""
REGISTER = """
local token = tonumber(ARGV[2])
while true do
  local name = redis.call('HGET', KEYS[1], token)
  if name == ARGV[1] then break end
  if not name then redis.call('HSET', KEYS[1], token, ARGV[1]) break end
  token = token % 2147483647 + 1
end
local notes = ARGV[3] .. 'notes:' .. token
local missing = redis.call('LLEN', ARGV[3] .. 'queue:' .. token) - redis.call('LLEN', notes)
for i = 1, missing do redis.call('RPUSH', notes, '') end
return token
"""
ENQUEUE = """
if redis.call('HEXISTS', KEYS[1], ARGV[1]) == 0 then return 0 end
redis.call('RPUSH', KEYS[2], ARGV[2])
redis.call('RPUSH', KEYS[3], '')
return 1
"""
DEQUEUE = """
if redis.call('HEXISTS', KEYS[1], ARGV[1]) == 0 then return 0 end
return redis.call('LPOP', KEYS[2])
"""
MERGE = """
if tonumber(redis.call('GET', KEYS[2]) or '0') < tonumber(ARGV[1]) then
  redis.call('SET', KEYS[2], ARGV[1], 'EX', ARGV[2])
  for i = 3, #ARGV, 3 do
    if ARGV[i] == '0' then redis.call('HSET', KEYS[1], ARGV[i + 1], '0') end
    redis.pcall('HINCRBY', KEYS[1], ARGV[i + 1], ARGV[i + 2])
  end
end
redis.call('EXPIRE', KEYS[1], ARGV[2])
return redis.call('HGETALL', KEYS[1])
"""


def opened(
    url: str, ttl: float | None = None, timeout: float = TIMEOUT, prefix: str = PREFIX, node: str = ""
) -> Shared:
    """The services in a database. Raises: ValueError, for a URL that redis-py does not accept."""
    server = Server(url, timeout, prefix)
    queues = RedisSharedQueues(server)
    metrics = SharedMetrics(RedisMetrics(server, node or socket.gethostname()))

    def close() -> None:
        queues.close()
        metrics.close()
        server.close()

    return Shared(RedisSharedData(server, ttl), queues, metrics, close)


class Server:
    """A Redis server, for hostcalls. Safe to use from several threads, and after a fork."""

    def __init__(self, url: str, timeout: float, prefix: str) -> None:
        self._url = url
        self.timeout = timeout
        self.prefix = prefix
        self.client = self._connected(timeout)
        at = {"host": "localhost", "port": 6379, **self.client.connection_pool.connection_kwargs}
        self.name = "Redis at " + (at.get("path") or "{host}:{port}".format(**at))
        self._breaker = Breaker(self.name)
        self.set, self.register, self.enqueue, self.dequeue, self.merge = map(
            self.client.register_script, (SET, REGISTER, ENQUEUE, DEQUEUE, MERGE)
        )

    def _connected(self, timeout: float) -> Any:
        return redis.Redis.from_url(
            self._url,
            socket_timeout=timeout,
            socket_connect_timeout=self.timeout,
            retry=Retry(NoBackoff(), 0),
            decode_responses=False,
        )

    def waiting(self, seconds: float) -> Any:
        """A client that waits `seconds` longer for answers."""
        return self._connected(self.timeout + seconds)

    def key(self, *parts: str | bytes | int) -> bytes:
        """A key with our prefix."""
        said = (part if isinstance(part, bytes) else str(part).encode("utf-8", "surrogateescape") for part in parts)
        return self.prefix.encode() + b":".join(said)

    def ask(self, call: Callable[..., Any], *args: Any, **more: Any) -> Any:
        """Send a command. Raises: ServiceUnavailable, QuotaExceeded."""
        self._breaker.check()
        try:
            return call(*args, **more)
        except redis.exceptions.OutOfMemoryError as error:
            raise QuotaExceeded(f"{self.name} has no room: {error}") from None
        except redis.exceptions.ResponseError as error:
            if "OOM " in str(error):  # the error of a script
                raise QuotaExceeded(f"{self.name} has no room: {error}") from None
            raise self._breaker.failed(error) from None
        except (redis.RedisError, OSError) as error:
            raise self._breaker.failed(error) from None

    def close(self) -> None:
        """Close the connections; further use opens new ones."""
        self.client.close()


def _vm(vm_id: str) -> bytes:
    """A vm_id as a part of a key, with its length because it may contain colons."""
    name = vm_id.encode("utf-8", "surrogateescape")
    return b"%d:%b" % (len(name), name)


class RedisSharedData:
    """Shared data that expires `ttl` seconds after it was set. Errors of all methods: ServiceUnavailable."""

    def __init__(self, server: Server, ttl: float | None = None) -> None:
        self._server = server
        self._ttl = 0 if ttl is None else max(1, int(ttl * 1000))

    def get(self, vm_id: str, key: bytes) -> tuple[bytes, int] | None:
        """The value and its CAS number, or ``None`` if the key was never set or has expired."""
        server = self._server
        value, cas = server.ask(server.client.hmget, server.key("data", _vm(vm_id), key), "value", "cas")
        return None if cas is None else (value, int(cas))

    def set(self, vm_id: str, key: bytes, value: bytes, cas: int = 0) -> bool:
        """Store a value, unless `cas` is neither 0 nor the number of the key. Raises: QuotaExceeded."""
        server = self._server
        keys = [server.key("data", _vm(vm_id), key), server.key("cas")]
        return bool(server.ask(server.set, keys, [value, cas, self._ttl]))

    def __repr__(self) -> str:
        return f"<RedisSharedData in {self._server.name}>"


class RedisSharedQueues(ListeningQueues):
    """Queues. A message notifies only the first free process of those that have registered its queue.

    Errors of all methods: ServiceUnavailable.
    """

    def __init__(self, server: Server) -> None:
        self._server = server
        self._names: dict[int, bytes] = {}
        super().__init__()

    def _new_listener(self) -> Listener:
        return _Listener(self._server, self._names)

    def register(self, vm_id: str, name: bytes, on_ready: Callable[[int], None]) -> int:
        """Create a queue, or take it over for this process, and return its token. Raises: QuotaExceeded."""
        queue = _queue(vm_id, name)
        token = _register(self._server, queue)
        self._names[token] = queue
        self._listen(token, on_ready)
        return token

    def resolve(self, vm_id: str, name: bytes) -> int | None:
        """The token of a queue, or ``None``."""
        server, queue = self._server, _queue(vm_id, name)
        token = _first_token(queue)
        while True:
            found = server.ask(server.client.hget, server.key("queues"), token)
            if found is None or found == queue:
                return None if found is None else token
            token = token % LAST + 1

    def enqueue(self, token: int, message: bytes) -> None:
        """Append a message. Raises: UnknownQueue, QuotaExceeded."""
        server = self._server
        keys = [server.key("queues"), server.key("queue", token), server.key("notes", token)]
        if not server.ask(server.enqueue, keys, [token, message]):
            raise UnknownQueue(f"no queue has the token {token}")

    def dequeue(self, token: int) -> bytes | None:
        """Remove and return the oldest message, or ``None`` if the queue is empty. Raises: UnknownQueue."""
        server = self._server
        keys = [server.key("queues"), server.key("queue", token)]
        message: bytes | int | None = server.ask(server.dequeue, keys, [token])
        if isinstance(message, int):
            raise UnknownQueue(f"no queue has the token {token}")
        return message

    def __repr__(self) -> str:
        return f"<RedisSharedQueues in {self._server.name}>"


def _queue(vm_id: str, name: bytes) -> bytes:
    return _vm(vm_id) + b":" + name


def _first_token(queue: bytes) -> int:
    """The token of a queue, unless another queue has it. It stays the same after the server has lost its data."""
    return int.from_bytes(blake2b(queue, digest_size=8).digest(), "big") % LAST + 1


def _register(server: Server, queue: bytes) -> int:
    return int(server.ask(server.register, [server.key("queues")], [queue, _first_token(queue), server.prefix]))


class _Listener(Listener):
    """A listener that waits for notes of all its queues, and for a list of its own that wakes it."""

    def __init__(self, server: Server, names: dict[int, bytes]) -> None:
        """`names` are the queues, by token, that it may have to register again."""
        self._server = server
        self._names = names
        self._client = server.waiting(EACH)
        self._own = server.key("wake", f"{socket.gethostname()}-{os.getpid()}-{os.urandom(4).hex()}")
        self._away = False
        super().__init__()

    def _take(self) -> Iterator[int]:
        tokens = {self._server.key("notes", token): token for token in list(self._told)}
        try:
            if self._away:
                for token in tokens.values():
                    _register(self._server, self._names[token])  # the server may have lost them
            self._away = True
            taken = self._client.blpop([self._own, *tokens], timeout=EACH)
            self._away = False
        except (redis.RedisError, OSError) as error:
            raise ServiceUnavailable(f"{self._server.name}: {error}") from None
        if taken is not None and taken[0] in tokens:
            yield tokens[taken[0]]

    def _wake(self) -> None:
        with contextlib.suppress(ServiceUnavailable, QuotaExceeded):
            self._server.ask(self._server.client.rpush, self._own, "")
            self._server.ask(self._server.client.expire, self._own, 60)

    def _free(self) -> None:
        self._client.close()


class RedisMetrics:
    """A `MetricStore` for all processes of one node."""

    EACH = 1.0

    def __init__(self, server: Server, node: str) -> None:
        self._server = server
        self._node = node
        self._name = os.urandom(8).hex()

    def merge(self, number: int, changes: Changes) -> Totals:
        """Make the changes, and return the totals of the node. Raises: ServiceUnavailable, QuotaExceeded."""
        server = self._server
        words: list[Any] = [number, KEPT]
        for field, (kept, amount) in changes.items():
            words += [int(kept), field.encode("utf-8", "surrogateescape"), max(-MOST, min(amount, MOST))]
        keys = [server.key("metrics", self._node), server.key("seen", f"{self._name}-{os.getpid()}")]
        found = server.ask(server.merge, keys, words)
        pairs = zip(found[::2], found[1::2], strict=True)
        return {name.decode("utf-8", "surrogateescape"): int(total) for name, total in pairs}
