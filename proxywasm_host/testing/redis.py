"""Simulates Redis for callouts of filters: ``f.redis["cache"] = fake_redis(f.clock)``.

The package `fakeredis` answers, including Lua scripts. Keys expire by the test's clock.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from proxywasm_host import remedy
from proxywasm_host.testing.callouts import Callout, RedisError, RedisStatus
from proxywasm_host.testing.clock import VirtualClock

__all__ = ["fake_redis"]

STATUSES = frozenset({b"OK", b"PONG", b"QUEUED"})
"""Answers of Redis that are simple strings. All other text is a bulk string."""


def fake_redis(clock: VirtualClock) -> Callable[[Callout], Any]:
    """A function that answers like a new, empty Redis. Raises: ModuleNotFoundError, without the extra `fakeredis`."""
    try:
        import fakeredis  # noqa: PLC0415 - from an extra
        from redis.exceptions import ResponseError  # noqa: PLC0415
    except ModuleNotFoundError as error:
        raise remedy.missing("fakeredis", error) from None

    client = fakeredis.FakeRedis(server=fakeredis.FakeServer(), protocol=2)
    connection = client.connection_pool.get_connection()
    seen = clock.now_ns

    def answer(callout: Callout) -> Any:
        nonlocal seen
        passed, seen = (clock.now_ns - seen) // 1_000_000, clock.now_ns
        if passed:
            for key in client.scan_iter():
                left = client.pttl(key)
                if left >= 0:
                    client.pexpire(key, left - passed)
        connection.send_command(*callout.command)
        try:
            reply = connection.read_response()
        except ResponseError as error:
            text = str(error)
            return RedisError(text if text.split(" ", maxsplit=1)[0].isupper() else f"ERR {text}")
        return _as_redis_says_it(reply)

    return answer


def _as_redis_says_it(reply: Any) -> Any:
    if isinstance(reply, Mapping):
        reply = [part for pair in reply.items() for part in pair]
    if isinstance(reply, (list, tuple, set)):
        return [_as_redis_says_it(each) for each in reply]
    return RedisStatus(reply.decode()) if reply in STATUSES else reply
