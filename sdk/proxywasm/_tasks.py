"""The awaitables of a filter: callouts, sleeping, and several of these at once."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from proxywasm._host import host
from proxywasm._log import log, traceback

__all__ = [
    "FixedHeaders",
    "Future",
    "Reply",
    "Task",
    "call",
    "content",
    "create_task",
    "every",
    "gather",
    "pairs",
    "run",
    "sleep",
    "tasks",
]

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine, Generator

    from proxywasm._types import HeadersLike

T = TypeVar("T")
F = TypeVar("F", bound="Callable[[], Any]")
NOTHING: list[tuple[str, str]] = []


def content(body: Any) -> bytes:
    """`body` in bytes: bytes unchanged, text in UTF-8, anything else as JSON."""
    if isinstance(body, (bytes, bytearray)):
        return bytes(body)
    return (body if isinstance(body, str) else json.dumps(body)).encode()


def pairs(headers: HeadersLike) -> list[tuple[str, str]]:
    return list(headers.items() if hasattr(headers, "items") else headers or NOTHING)  # type: ignore[union-attr]


class Future(Generic[T]):
    """A value, or an exception, that arrives later. ``await`` it, once or several times."""

    def __init__(self) -> None:
        self.done = False
        self.result: Any = None
        self.error: BaseException | None = None
        self._then: list[Callable[[], None]] = []

    def set(self, result: T) -> None:
        """Set the value, and continue the code that waits for it."""
        if not self.done:
            self.done = True
            self.result = result
            waiting = self._then
            self._then = []
            for then in waiting:
                then()

    def fail(self, error: BaseException) -> None:
        """Set an exception, which the code that waits raises."""
        if not self.done:
            self.error = error
            self.set(None)  # type: ignore[arg-type]

    def then(self, function: Callable[[], None]) -> None:
        if self.done:
            function()
        else:
            self._then.append(function)

    def __await__(self) -> Generator[Any, Any, T]:
        if not self.done:
            yield self
        if self.error is not None:
            raise self.error
        return self.result  # type: ignore[no-any-return]

    __iter__ = __await__


# The context for which the host called us or, while a task of another context runs, that of the task.
class _Now:
    context = 0


now = _Now()


def enter(context: int) -> int:
    """Make `context` the effective one of hostcalls, and return the one before."""
    before = now.context
    if context != before:
        host.effective_context(context)
        now.context = context
    return before


class Task(Future[Any]):
    """A coroutine that runs for one context, and continues when what it awaits arrives. `error` is what it raised."""

    def __init__(self, coroutine: Coroutine[Any, Any, Any], context: int) -> None:
        super().__init__()
        self._coroutine = coroutine
        self._context = context
        self.cancelled = False
        self._step()

    def _step(self) -> None:
        if self.cancelled:
            return
        try:
            before = enter(self._context)
        except Exception:  # its stream has ended
            self.cancelled = True
            return
        try:
            waited = self._coroutine.send(None)
        except StopIteration as end:
            self.set(end.value)
        except Exception as error:
            self.fail(error)
        else:
            waited.then(self._step)
        if before != self._context:
            try:
                enter(before)
            except Exception:
                now.context = before


# The tasks of each context, which end with it.
tasks: dict[int, list[Task]] = {}


async def gather(*awaitables: Awaitable[Any]) -> list[Any]:
    """Wait for several awaitables at once, and return their values in order. Raises: the first exception in order."""
    waiting = []
    for one in awaitables:
        waiting.append(one if isinstance(one, Future) else Task(one, now.context))  # type: ignore[arg-type]
    out = []
    for one in waiting:
        out.append(await one)
    return out


class FixedHeaders(dict):  # type: ignore[type-arg]  # MicroPython has no dict[str, str]
    """Headers of a reply: a dict with lower-case names. `pairs` has all headers, as they arrived."""

    def __init__(self, pairs: list[tuple[str, str]]) -> None:
        super().__init__()
        self.pairs: list[tuple[str, str]] = []
        self._add(pairs)

    def _add(self, pairs: list[tuple[str, str]]) -> None:
        self.pairs += pairs
        for name, value in pairs:
            name = name.lower()
            self[name] = self[name] + "," + value if name in self else value

    def get_all(self, name: str) -> list[str]:
        """The values of all headers of a name."""
        return [value for key, value in self.pairs if key.lower() == name.lower()]


class Reply:
    """The reply to an HTTP callout: `status`, `headers` (with lower-case names), `body`, `trailers`."""

    def __init__(self, headers: list[tuple[str, str]], body: bytes, trailers: list[tuple[str, str]]) -> None:
        self.headers = FixedHeaders(headers)
        self.body = body
        self.trailers = FixedHeaders(trailers)
        self.status = int(self.headers.get(":status", "0"))

    @property
    def text(self) -> str:
        """The body as text."""
        return self.body.decode()

    def json(self) -> Any:
        """The body as JSON. Raises: ValueError."""
        return json.loads(self.body)


# Pending callouts, by their tokens.
http_calls: dict[int, Future[Reply | None]] = {}


def call(
    cluster: str, method: str, path: str, headers: HeadersLike = None, body: Any = b"", trailers: HeadersLike = None,
    timeout: float = 5.0, host_name: str = "",
) -> Future[Reply | None]:  # fmt: skip
    """Send an HTTP request to a cluster, and await a `Reply`, or None if none arrives within `timeout` seconds.

    The callout begins at once, even if it is awaited later. Raises: HostError, if the host has no such cluster.
    """
    head = [(":method", method), (":path", path), (":authority", host_name or cluster)]
    future: Future[Reply | None] = Future()
    token = host.http_call(cluster, head + pairs(headers), content(body), pairs(trailers), int(timeout * 1000))
    http_calls[token] = future
    return future


# The host ticks for the plugin with a single period; each tick runs what is due.
class _Clock:
    period = 0
    root = 0


clock = _Clock()
repeated: list[list[Any]] = []
sleeping: list[tuple[int, Future[None]]] = []


def every(seconds: float) -> Callable[[F], F]:
    """A decorator: call a function without arguments, plain or async, every so many seconds."""

    def decorate(function: F) -> F:
        repeated.append([int(seconds * 1e9), 0, function])
        return function

    return decorate


def sleep(seconds: float) -> Future[None]:
    """Wait: ``await sleep(0.1)``. It ends at a tick of the host, so it may take a little longer."""
    future: Future[None] = Future()
    sleeping.append((host.time_ns() + int(seconds * 1e9), future))
    set_period()
    return future


def set_period() -> None:
    """Set the host's tick period to the shortest that is needed."""
    wanted = [period for period, _, _ in repeated]
    if sleeping:
        wanted.append(min(max(due - host.time_ns(), 1000000) for due, _ in sleeping))
    period = max(1, min(wanted) // 1000000) if wanted else 0
    if period != clock.period:
        before = enter(clock.root)
        host.tick_period(period)
        clock.period = period
        enter(before)


def tick(context: int) -> None:
    """Run everything that is due."""
    time = host.time_ns() + 500000
    for one in repeated:
        if time >= one[1]:
            one[1] = time + one[0] - 1000000
            start(one[2], context)
    due = [entry for entry in sleeping if entry[0] <= time]
    for entry in due:
        sleeping.remove(entry)
        entry[1].set(None)
    if due:
        set_period()


def start(function: Callable[[], Any], context: int) -> None:
    """Call a function that belongs to no stream, and log what it raises."""
    try:
        result = function()
        if hasattr(result, "send"):
            run(result, context)
    except Exception as error:
        log.error(traceback(error))


def run(coroutine: Coroutine[Any, Any, Any], context: int) -> Task:
    """Run a coroutine, and log what it raises."""
    task = Task(coroutine, context)

    def tell() -> None:
        if task.error is not None:
            log.error(traceback(task.error))

    task.then(tell)
    return task


def create_task(coroutine: Coroutine[Any, Any, Any]) -> Task:
    """Run a coroutine concurrently, and log what it raises. The task may be awaited, and ends with its stream.

    In `on_configure`, which cannot wait, the task belongs to the plugin: ``create_task(self.fetch_keys())``.
    """
    task = run(coroutine, now.context)
    if not task.done:
        beside = tasks.setdefault(now.context, [])
        beside.append(task)
        task.then(lambda: beside.remove(task))
    return task
