"""Redis callouts: Higress's, and those of `proxywasm_host`. ::

    from proxywasm.redis import Redis, RedisError

    class Limit(HttpFilter):
        def on_configure(self, config):
            self.redis = Redis("redis", password=config["password"], db=2)

        async def on_request_headers(self, request):
            key = "count:" + request.host
            count = await self.redis.incr(key)
            if count == 1:
                await self.redis.expire(key, 60)
            if count > self.config["limit"]:
                return Response(429)

A script that imports this module becomes one for Higress (ABI 0.2.100), which Envoy refuses: it has no Redis callouts.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from proxywasm import _callbacks
from proxywasm._host import host
from proxywasm._tasks import Future, now

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Redis", "RedisError", "RedisUnavailable"]

REPLY = 9  # the buffer of a reply


class RedisError(Exception):
    """Redis answered a command with an error; the message is Redis's: ``WRONGTYPE Operation against a key …``."""


class RedisUnavailable(RedisError):
    """No reply to a command: no connection, a timeout, or a wrong password."""


class Redis:
    """A client of a Redis cluster of the host. Each Redis command is a method to await: ``await redis.get("key")``.

    Arguments are text, bytes or numbers. A reply is bytes (text with `decode_responses`), int, a status such as
    ``"OK"`` as text, None for nil, or a list of those; for ``hgetall`` a dict. Raises when awaited: RedisError.

    `cluster` is its name in the host, `db` the number of the database (the same for all clients of a cluster), and
    `timeout` the limit for a reply in seconds. A command raises HostError if the host has no such cluster.
    """

    def __init__(
        self,
        cluster: str,
        username: str = "",
        password: str = "",
        db: int = 0,
        timeout: float = 1.0,
        decode_responses: bool = False,
    ) -> None:
        self.cluster = cluster
        self._username = username
        self._password = password
        self._db = db
        self._timeout = timeout
        self._decode = decode_responses
        self._plugins: set[int] = set()

    def execute(self, *command: Any) -> Future[Any]:
        """Send a command at once, awaited or not: ``await redis.execute("CONFIG", "GET", "maxmemory")``."""
        plugin = _callbacks.plugin_of(now.context)
        if plugin not in self._plugins:
            name = "%s?db=%d" % (self.cluster, self._db) if self._db else self.cluster
            host.redis_init(name, self._username, self._password, int(self._timeout * 1000))
            self._plugins.add(plugin)
        future: Future[Any] = Future()
        waiting[host.redis_call(self.cluster, encoded(command))] = (future, self._decode, command[0])
        return future

    def set(
        self, name: Any, value: Any, ex: int | None = None, px: int | None = None, nx: bool = False, xx: bool = False
    ) -> Future[Any]:
        """Set a value, for `ex` seconds or `px` milliseconds if given; the reply is "OK" or None.

        `nx` sets it only if the key has no value, `xx` only if it has one.
        """
        command = ["SET", name, value]
        if ex is not None:
            command += ["EX", ex]
        if px is not None:
            command += ["PX", px]
        if nx:
            command.append("NX")
        if xx:
            command.append("XX")
        return self.execute(*command)

    def delete(self, *names: Any) -> Future[Any]:
        """Delete keys; the reply is the number of those that existed."""
        return self.execute("DEL", *names)

    def eval(self, script: str, numkeys: int, *keys_and_args: Any) -> Future[Any]:
        """Run a Lua script; the reply is its result."""
        return self.execute("EVAL", script, numkeys, *keys_and_args)

    def __getattr__(self, name: str) -> Callable[..., Future[Any]]:
        """Any other command, by its name in lower case: ``redis.zadd("board", 3, "alice")``."""
        if name.startswith("_"):
            raise AttributeError(name)

        def command(*arguments: Any) -> Future[Any]:
            return self.execute(name.upper(), *arguments)

        return command


# Pending commands, by their tokens: (future, whether the reply is decoded to text, name of the command).
waiting: dict[int, tuple[Future[Any], bool, Any]] = {}


def encoded(command: Any) -> bytes:
    """A command in RESP, as an array of bulk strings. Raises: TypeError."""
    out = [b"*%d\r\n" % len(command)]
    for word in command:
        if isinstance(word, str):
            word = word.encode()
        elif isinstance(word, (int, float)) and not isinstance(word, bool):
            word = str(word).encode()
        elif not isinstance(word, (bytes, bytearray)):
            raise TypeError("the arguments of a Redis command are text, bytes or numbers, not %r" % (word,))
        out.append(b"$%d\r\n" % len(word) + word + b"\r\n")
    return b"".join(out)


def decoded(data: bytes, at: int, text: bool) -> tuple[Any, int]:
    """The RESP value at `at`, and the position after it. Raises: ValueError."""
    end = data.find(b"\r\n", at)
    if end < 0:
        raise ValueError("an answer of Redis ends too early")
    kind = data[at : at + 1]
    line = data[at + 1 : end].decode()
    at = end + 2
    if kind == b"+":
        return line, at
    if kind == b"-":
        return RedisError(line), at
    size = int(line)
    if kind == b":":
        return size, at
    if size < 0:
        return None, at
    if kind == b"$":
        if at + size + 2 > len(data):
            raise ValueError("an answer of Redis ends too early")
        value = data[at : at + size]
        return value.decode() if text else value, at + size + 2
    if kind != b"*":
        raise ValueError("no answer of Redis begins with %r" % kind)
    out = []
    for _ in range(size):
        value, at = decoded(data, at, text)
        out.append(value)
    return out, at


def answered(context: int, token: int, status: int, size: int) -> None:
    now.context = context
    if token not in waiting:
        return
    future, text, command = waiting.pop(token)
    try:
        if status:
            raise RedisUnavailable("no reply of Redis to %s" % command)
        value, _ = decoded(host.get_buffer(REPLY, 0, size), 0, text)
        if isinstance(value, RedisError):
            raise value
        if command == "HGETALL" and isinstance(value, list):
            value = {value[i]: value[i + 1] for i in range(0, len(value), 2)}
    except Exception as error:
        future.fail(error)
    else:
        future.set(value)


_callbacks.CALLBACKS["redis_call_response"] = answered
_callbacks.need("redis_call_response")
# Envoy treats a 1 as this action, so that the body waits with the headers; Higress does not.
_callbacks.hold = _callbacks.STOP_ALL_AND_WATERMARK
