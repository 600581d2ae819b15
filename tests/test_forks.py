"""A fork while other threads are amid a change: the child, which does not have them, waits for none of them."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import threading

import pytest

from proxywasm_host.fetch.store import Store
from proxywasm_host.forks import cached_property, fork_lock
from proxywasm_host.runtime import queue_notifications
from proxywasm_host.services import InMemoryMetrics, InMemorySharedData, InMemorySharedQueues
from proxywasm_host.services.shared.listener import ListeningQueues
from proxywasm_host.services.shared.metrics import SharedMetrics
from proxywasm_host.services.zones import Zone
from proxywasm_host.testing.compliance import processes
from proxywasm_host.testing.compliance.processes import in_a_child

pytestmark = [
    pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork"),
    pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning"),
]


@pytest.fixture(autouse=True)
def _impatient(monkeypatch):
    monkeypatch.setattr(processes, "_PATIENCE", 5.0)


class Slow:
    """A value, in the use of which a thread stays until `go_on`."""

    def __init__(self):
        self.reached, self.go_on = threading.Event(), threading.Event()

    def wait(self):
        self.reached.set()
        assert self.go_on.wait(20)


class SlowText(Slow, str):  # noqa: SLOT000 - it has attributes
    def __len__(self):
        self.wait()
        return 1


class SlowBytes(Slow, bytes):
    def __len__(self):
        self.wait()
        return 1


class SlowNumber(Slow):
    def __radd__(self, other):
        self.wait()
        return other


class SlowKey(Slow):
    def __hash__(self):
        self.wait()
        return 1


def metrics():
    made = InMemoryMetrics()
    return lambda amount: made.add(0, "c", amount), SlowNumber(), 1


def shared_metrics():
    class Nothing:
        EACH = 0.25

        def merge(self, number, changes):
            return {}

    made = SharedMetrics(Nothing())
    return lambda amount: made.add(0, "c", amount), SlowNumber(), 1


def shared_data():
    made = InMemorySharedData()
    return lambda value: made.set("vm", b"k", value), SlowBytes(), b"v"


def queues():
    made = InMemorySharedQueues()
    token = made.register("vm", b"q", bool)
    return lambda message: made.enqueue(token, message), SlowBytes(), b"m"


def notifications():
    made = queue_notifications.QueueNotifications(bool)
    for _ in range(queue_notifications.AT_ONCE):
        made.add(1)
    return made.add, SlowKey(), 1


def zone():
    made = Zone("z", 1 << 20)
    return lambda value: made.set(b"k", value, 0), SlowBytes(), b"v"


def dictionary():
    pytest.importorskip("lupa")
    from proxywasm_host.kong.lua.shared_dictionaries import SharedDictionary

    made = SharedDictionary(1 << 20)
    return lambda value: made.set("k", value), SlowText(), "v"


def store():
    made = Store(None, 1 << 20)
    return made.blob, SlowKey(), "sha256:0"


@pytest.mark.parametrize("made", [metrics, shared_metrics, shared_data, queues, notifications, zone, dictionary, store])
def test_amid_a_change(made):
    change, slow, quick = made()
    thread = threading.Thread(target=change, args=(slow,))
    thread.start()
    assert slow.reached.wait(5)
    threading.Timer(0.05, slow.go_on.set).start()
    assert in_a_child(lambda: change(quick)) == 0
    thread.join()


def test_amid_a_property():
    """That of `functools` has one lock for all objects, before CPython 3.12."""

    class Thing(Slow):
        @cached_property
        def known(self):
            self.wait()
            return 7

    slow, other = Thing(), Thing()
    other.go_on.set()
    thread = threading.Thread(target=lambda: slow.known)
    thread.start()
    assert slow.reached.wait(5)
    try:
        assert in_a_child(lambda: other.known) == 0
    finally:
        slow.go_on.set()
        thread.join()
    assert (slow.known, Thing.known.__doc__) == (7, None)


def test_amid_a_registration():
    """Nor does closing the queues wait for the parent's thread, which may wait for a server."""

    class Queues(ListeningQueues):
        def _new_listener(self):
            slow.wait()
            raise OSError

        def register(self):
            with contextlib.suppress(OSError):
                self._listen(1, bool)

    slow, made = Slow(), Queues()
    thread = threading.Thread(target=made.register)
    thread.start()
    assert slow.reached.wait(5)
    try:
        assert in_a_child(made.close) == 0
    finally:
        slow.go_on.set()
        thread.join()


def test_a_lock_in_both_processes():
    lock = fork_lock()

    def taken():
        assert lock.acquire(timeout=5)
        lock.release()

    def elsewhere():
        thread = threading.Thread(target=taken)
        thread.start()
        thread.join()

    with lock:  # a fork of its own holder, as by a signal handler
        assert in_a_child(taken) == 0
    assert in_a_child(elsewhere) == 0
    elsewhere()


def test_a_lock_that_is_made_while_a_fork_waits():
    lock, reached, go_on = fork_lock(), threading.Event(), threading.Event()

    def make():
        with lock:
            reached.set()
            assert go_on.wait(20)
            fork_lock()

    thread = threading.Thread(target=make)
    thread.start()
    assert reached.wait(5)
    threading.Timer(0.05, go_on.set).start()
    assert in_a_child(lambda: None) == 0
    thread.join()


def test_a_signal_handler_that_forks_while_another_fork_begins():
    """Every lock is free afterwards."""
    program = """
import os, signal, threading
from proxywasm_host.forks import fork_lock
lock = fork_lock()
def fork(*_):
    if not (child := os.fork()):
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
signal.signal(signal.SIGUSR1, fork)
hold, held = threading.Event(), threading.Event()
def holder():
    with lock:
        held.set()
        hold.wait(20)
thread = threading.Thread(target=holder)
thread.start()
held.wait(20)
def signals():
    os.kill(os.getpid(), signal.SIGUSR1)  # while the fork waits for the lock
    hold.set()
threading.Timer(0.1, signals).start()
fork()
thread.join()
free = []
other = threading.Thread(target=lambda: free.append(lock.acquire(timeout=5)))
other.start()
other.join()
assert free == [True]
"""
    subprocess.run([sys.executable, "-W", "ignore::DeprecationWarning", "-c", program], check=True, timeout=60)
