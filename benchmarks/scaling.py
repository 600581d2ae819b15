"""How cost grows with filters, headers, bytes of a body, threads and processes."""

from __future__ import annotations

import multiprocessing
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from functools import partial
from multiprocessing.connection import Connection

from benchmarks.contenders.native import native
from benchmarks.contenders.proxywasm import proxywasm
from benchmarks.headers import REQUEST, RESPONSE
from benchmarks.timing import InProcess
from benchmarks.workloads.messages import KIB, body, pairs

FILTERS = (1, 2, 4, 8, 16)
HEADERS = (10, 20, 40, 70, 100)
BODIES = tuple(KIB * size for size in (1, 256, 512, 768, 1024))
THREADS = (1, 2, 4, 8)
PROCESSES = (1, 2, 4)

CONTROL = "python"
"""The work as a Python function, to show the effect of threads and processes without an engine."""


@contextmanager
def filters(engine: str, count: int) -> Iterator[InProcess]:
    """A request through a chain of so many header filters, each in a separate VM."""
    with proxywasm(engine, count) as timed:
        request, response = timed.result()
        assert request.count((b"x-wasm", b"hello")) == response.count((b"x-wasm", b"hello")) == count
        assert len(request) == len(REQUEST) + count
        assert len(response) == len(RESPONSE) + count
        yield timed


class Together:
    """Workers that send requests at the same time, each with its own host.

    `seconds` is the time of all workers for the total number of requests: if they scale, more workers take less time.
    """

    def __init__(self, workers: Sequence[Connection]) -> None:
        self.workers = workers

    def seconds(self, times: int) -> float:
        share = max(1, times // len(self.workers))
        start = time.perf_counter()
        for worker in self.workers:
            worker.send(share)
        for worker in self.workers:
            worker.recv()
        return (time.perf_counter() - start) * times / (share * len(self.workers))

    def result(self) -> int:
        """The number of answered requests after each worker has sent one."""
        for worker in self.workers:
            worker.send(1)
        return sum(worker.recv() for worker in self.workers)


def serve(engine: str, connection: Connection) -> None:
    """Run a worker: receive numbers of requests and send them, until 0 arrives. `engine` may be `CONTROL`."""
    with ExitStack() as stack:
        timed = stack.enter_context(native() if engine == CONTROL else proxywasm(engine))
        timed.result()
        connection.send("ready")
        while times := connection.recv():
            timed.seconds(times)
            connection.send(times)


@contextmanager
def threads(engine: str, count: int) -> Iterator[Together]:
    with workers(engine, count, threading.Thread) as together:
        yield together


@contextmanager
def processes(engine: str, count: int) -> Iterator[Together]:
    with workers(engine, count, multiprocessing.get_context("spawn").Process) as together:
        yield together


@contextmanager
def workers(engine: str, count: int, start: type) -> Iterator[Together]:
    pipes = [multiprocessing.Pipe() for _ in range(count)]
    started = [start(target=serve, args=(engine, theirs)) for _, theirs in pipes]
    for worker in started:
        worker.start()
    ours = [mine for mine, _ in pipes]
    try:
        for connection in ours:
            assert connection.recv() == "ready"
        yield Together(ours)
    finally:
        for connection in ours:
            connection.send(0)
        for worker in started:
            worker.join(10)
        for pair in pipes:
            for end in pair:
                end.close()


Opener = AbstractContextManager[InProcess]

# What grows: its numbers, and how to open each for timing.
LINES = {
    "filters": (FILTERS, filters),
    "headers": (HEADERS, pairs),
    "body bytes": (BODIES, body),
    "threads": (THREADS, threads),
    "processes": (PROCESSES, processes),
}


PARALLEL = ("threads", "processes")


def opened(what: str, engine: str, number: int):
    """Open it for timing. `number` is one of those in ``LINES[what]``."""
    _, open = LINES[what]
    return partial(open, engine)(number)
