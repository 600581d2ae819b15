"""Processes that count in shared data, a shared queue or a metric, for the tests and by hand:

    python -m tests.services.shared_counting processes:test data|queue|metric
"""

from __future__ import annotations

import argparse
import contextlib
import os
import subprocess
import sys
import time

from proxywasm_host.services.metrics import COUNTER
from proxywasm_host.services.shared import Shared, open_shared

KEY = b"count"
METRIC = "count"


class Data:
    """Counts as a guest does it: read, and write if nobody has written since."""

    def __init__(self, shared: Shared) -> None:
        self.data = shared.data
        if self.data.get("vm", KEY) is None:  # all_counted is the first to ask
            self.data.set("vm", KEY, b"0")

    def add(self) -> None:
        while True:
            value, cas = self.data.get("vm", KEY) or (b"0", 0)
            if self.data.set("vm", KEY, b"%d" % (int(value) + 1), cas):
                return

    def total(self) -> int:
        found = self.data.get("vm", KEY)
        return int(found[0]) if found else 0


class Queue:
    """Each message is one."""

    def __init__(self, shared: Shared) -> None:
        self.queues = shared.queues
        self.token = self.queues.resolve("vm", KEY) or self.queues.register("vm", KEY, lambda _: None)

    def add(self) -> None:
        self.queues.enqueue(self.token, b"1")

    def total(self) -> int:
        total = 0
        while self.queues.dequeue(self.token) is not None:
            total += 1
        return total


class Metric:
    def __init__(self, shared: Shared) -> None:
        self.metrics = shared.metrics
        self.metrics.define(COUNTER, METRIC)

    def add(self) -> None:
        self.metrics.add(COUNTER, METRIC, 1)

    def total(self) -> int:
        """Those of processes that have ended are there at once."""
        return self.metrics.snapshot()["counters"].get(METRIC, 0)


WAYS = {"data": Data, "queue": Queue, "metric": Metric}


def count(choice: str, way: str, times: int) -> None:
    """Count up, and say after each time how often it was."""
    shared = open_shared(choice)
    counter = WAYS[way](shared)
    for done in range(1, times + 1):
        counter.add()
        os.write(1, b"%d\n" % done)
    shared.close()


def started(choice: str, way: str, times: int) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "tests.services.shared_counting", choice, way, str(times)]
    return subprocess.Popen(command, stdout=subprocess.PIPE)


def all_counted(choice: str, way: str, processes: int, times: int) -> tuple[int, int, int]:
    """What processes that count at once have counted, one of them killed in the middle.

    Returns what is there, what those that were not killed have counted, and what the one said that was.
    """
    with contextlib.ExitStack() as stack:
        shared = open_shared(choice)
        stack.callback(shared.close)
        counter = WAYS[way](shared)
        victim, *others = [started(choice, way, times) for _ in range(processes)]
        for each in (victim, *others):
            stack.enter_context(each)
            stack.callback(each.kill)
        said = b""
        while said.count(b"\n") < times // 2:
            more = os.read(victim.stdout.fileno(), 1 << 16)
            assert more, "the process that was to be killed has ended by itself"
            said += more
        victim.kill()
        said += victim.communicate()[0]
        for each in others:
            assert (each.communicate()[0].count(b"\n"), each.returncode) == (times, 0)
        value = counter.total()
    return value, len(others) * times, said.count(b"\n")


def lost(way: str, value: int, others: int, victim: int) -> bool:
    """Whether what was counted is less, or more, than it may be.

    Who was killed may have counted once more than it said. Of a metric it may lose what it had not added to the others'.
    """
    least = others if way == "metric" else others + victim
    return not least <= value <= others + victim + 1


def main() -> None:
    parser = argparse.ArgumentParser(description="8 processes count to 80,000, one is killed in the middle.")
    parser.add_argument("choice", help="as shared: says it, processes:NAME or redis://…")
    parser.add_argument("way", choices=WAYS)
    parser.add_argument("times", type=int, nargs="?", help="count so often, in this process alone")
    given = parser.parse_args()
    if given.times:
        count(given.choice, given.way, given.times)
        return
    began = time.perf_counter()
    value, others, victim = all_counted(given.choice, given.way, 8, 10_000)
    seconds = time.perf_counter() - began
    print(f"{value} of {others} and {victim} by the one that was killed: {seconds:.1f} s")
    if lost(given.way, value, others, victim):
        raise SystemExit("something was lost")


if __name__ == "__main__":
    main()
