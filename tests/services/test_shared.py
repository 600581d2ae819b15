"""Shared data, queues and metrics, in this process, between processes, and in Redis: the same answers."""

from __future__ import annotations

import contextlib
import fcntl
import os
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from pathlib import Path

import pytest

from proxywasm_host.errors import ConfigError
from proxywasm_host.services import QuotaExceeded, ServiceUnavailable, UnknownQueue
from proxywasm_host.services.metrics import COUNTER, GAUGE, HISTOGRAM
from proxywasm_host.services.shared import check_shared, open_shared, processes
from proxywasm_host.services.shared import directory as of_directory
from proxywasm_host.services.shared.directory import Directory
from proxywasm_host.services.shared.processes import ProcessSharedData, ProcessSharedQueues
from proxywasm_host.services.shared_data import ENTRY
from tests.redis_server import Server, valkey
from tests.services.shared_counting import WAYS, all_counted, lost

NUMBER = count()


@pytest.fixture(scope="module")
def redis_server(tmp_path_factory):
    server = Server(tmp_path_factory.mktemp("redis"))
    yield server
    server.stop()


@pytest.fixture(scope="module")
def valkey_server(tmp_path_factory):
    server = Server(tmp_path_factory.mktemp("valkey"), program=valkey())
    yield server
    server.stop()


def own_place(request) -> str:
    own = f"test-{os.getpid()}-{next(NUMBER)}"
    if request.param in ("redis", "valkey"):
        return f"{request.getfixturevalue(f'{request.param}_server').url}/0?timeout=5&prefix={own}:"
    return request.param if request.param == "memory" else f"processes:{own}"


@pytest.fixture(params=["memory", "processes", "redis", "valkey"])
def choice(request):
    """A place of its own on each backend."""
    return own_place(request)


@pytest.fixture(params=["processes", "redis"])
def outside(request):
    """A choice by which processes meet; to Valkey, processes are what they are to Redis."""
    return own_place(request)


@pytest.fixture
def opened():
    """`open_shared`; what was opened is closed after the test."""
    all = []

    def open(choice):
        all.append(open_shared(choice))
        return all[-1]

    yield open
    for each in all:
        each.close()


@pytest.fixture
def shared(choice, opened):
    return opened(choice)


def eventually(true, seconds=10):
    until = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < until
        time.sleep(0.005)


def with_option(choice: str, option: str) -> str:
    return f"{choice}{'&' if '?' in choice else '?'}{option}"


# -- Data --------------------------------------------------------------------------------------------------------------


def test_compare_and_swap(shared):
    data = shared.data
    assert data.get("vm", b"k") is None
    assert data.set("vm", b"k", b"created", cas=99)
    value, first = data.get("vm", b"k")
    assert value == b"created"
    assert first != 0
    assert not data.set("vm", b"k", b"lost", cas=first + 1)
    assert data.set("vm", b"k", b"swapped", cas=first)
    assert not data.set("vm", b"k", b"lost", cas=first)
    assert data.set("vm", b"k", b"forced", cas=0)
    assert data.get("vm", b"k")[0] == b"forced"
    assert data.get("vm", b"k")[1] not in (0, first)


def test_keys_of_any_length_and_content_and_vm_ids_are_apart(shared):
    keys = [b"", b"\0", b":", b"a:b", b"k" * 70_000, b"k" * 69_999, b"\xff\xfe"]
    for owner in ("", "vm", "vm:a", "ä\udcff"):
        for number, key in enumerate(keys):
            assert shared.data.set(owner, key, owner.encode("utf-8", "surrogateescape") + bytes([number]))
    for owner in ("", "vm", "vm:a", "ä\udcff"):
        for number, key in enumerate(keys):
            assert shared.data.get(owner, key)[0] == owner.encode("utf-8", "surrogateescape") + bytes([number])


def test_a_large_value(shared):
    value = os.urandom(4 << 20)
    assert shared.data.set("vm", b"k", value)
    assert shared.data.get("vm", b"k")[0] == value


def test_what_is_not_set_again_is_gone(choice, opened):
    data = opened(with_option(choice, "ttl=0.3")).data
    data.set("vm", b"k", b"v")
    data.set("vm", b"other", b"v")
    _, cas = data.get("vm", b"k")
    for _ in range(3):
        time.sleep(0.15)
        assert data.set("vm", b"k", b"again", 0)
    assert data.get("vm", b"k")[0] == b"again"
    assert data.get("vm", b"other") is None
    eventually(lambda: data.get("vm", b"k") is None)
    assert data.set("vm", b"k", b"new", cas)
    assert data.get("vm", b"k")[1] != cas


@pytest.mark.parametrize("way", WAYS)
def test_processes_lose_nothing_but_what_one_that_was_killed_had_not_counted(outside, way):
    counted = all_counted(outside, way, 8, 100)
    assert not lost(way, *counted), counted


# -- Queues ------------------------------------------------------------------------------------------------------------


def test_first_in_first_out_and_who_registers_last_is_told(shared):
    queues, old, new = shared.queues, [], []
    token = queues.register("vm", b"q", old.append)
    assert queues.register("vm", b"q", new.append) == token
    assert [queues.resolve("vm", b"q"), queues.resolve("vm", b"z"), queues.resolve("", b"q")] == [token, None, None]
    other = queues.register("vm", b"other", old.append)
    assert other != token
    for message in (b"a", b"", b"\0\xff"):
        queues.enqueue(token, message)
    eventually(lambda: len(new) == 3)
    assert (old, new) == ([], [token] * 3)
    assert [queues.dequeue(token) for _ in range(4)] == [b"a", b"", b"\0\xff", None]
    assert queues.dequeue(other) is None


@pytest.mark.parametrize("token", [0, 77, 0xFFFFFFFF])
def test_unknown_queues(shared, token):
    shared.queues.register("vm", b"q", print)
    for call in (shared.queues.dequeue, lambda token: shared.queues.enqueue(token, b"")):
        with pytest.raises(UnknownQueue, match=rf"^no queue has the token {token}$"):
            call(token)


CONSUMER = """
import os, sys, threading
from proxywasm_host.services.shared import open_shared
shared = open_shared(sys.argv[1])
def told(token):
    os.write(1, shared.queues.dequeue(token) + b" ")
shared.queues.register("vm", b"q", told)
os.write(1, b"ready\\n")
sys.stdin.read()
shared.close()
"""


class Consumer:
    """A process that takes a message whenever it is told of one, and writes it down."""

    def __init__(self, choice, path):
        self._path = path
        with path.open("wb") as output:
            command = [sys.executable, "-c", CONSUMER, choice]
            self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=output)
        eventually(lambda: b"ready" in path.read_bytes(), 30)

    @property
    def taken(self):
        return [int(word) for word in self._path.read_bytes().split() if word != b"ready"]

    def end(self):
        self.process.communicate()
        return self.process.returncode


def test_one_of_several_processes_is_told_of_each_message(outside, opened, tmp_path):
    queues = opened(outside).queues
    consumers = [Consumer(outside, tmp_path / str(number)) for number in range(3)]
    token = queues.resolve("vm", b"q")
    for number in range(100):
        queues.enqueue(token, b"%d" % number)
    eventually(lambda: sum(len(each.taken) for each in consumers) >= 100, 30)
    assert [each.end() for each in consumers] == [0, 0, 0]
    assert sorted(number for each in consumers for number in each.taken) == list(range(100))


def test_who_takes_the_place_of_a_process_that_was_killed_is_told_of_its_messages(outside, opened, tmp_path):
    queues = opened(outside).queues
    victim = Consumer(outside, tmp_path / "victim")
    token = queues.resolve("vm", b"q")
    victim.process.send_signal(signal.SIGSTOP)
    threads = Path(f"/proc/{victim.process.pid}/task")
    eventually(lambda: all(") T " in (thread / "stat").read_text() for thread in threads.iterdir()))
    queues.enqueue(token, b"1")
    victim.process.kill()
    assert (victim.end(), victim.taken) == (-signal.SIGKILL, [])
    successor = Consumer(outside, tmp_path / "successor")
    eventually(lambda: successor.taken == [1])
    assert successor.end() == 0


# -- Metrics -----------------------------------------------------------------------------------------------------------

COUNT = """
import sys
from proxywasm_host.services.shared import open_shared
shared = open_shared(sys.argv[1])
metrics = shared.metrics
metrics.define(0, "count")
metrics.define(2, "size")
for number in range(1000):
    metrics.add(0, "count", 1)
    metrics.record(2, "size", number)
    metrics.add(1, "level", 2)
shared.close()
"""


def test_metrics_add_up_over_processes(outside, opened):
    metrics = opened(outside).metrics
    metrics.define(COUNTER, "count")
    processes = [subprocess.Popen([sys.executable, "-c", COUNT, outside]) for _ in range(3)]
    metrics.add(COUNTER, "count", 5)
    assert [each.wait() for each in processes] == [0, 0, 0]
    eventually(lambda: metrics.snapshot()["counters"] == {"count": 3005})
    told = metrics.snapshot()
    assert told["gauges"] == {"level": 6000}
    assert sum(told["histograms"]["size"]["counts"]) == 3000
    assert told["histograms"]["size"]["sum"] == 3 * sum(range(1000))
    assert metrics.get(COUNTER, "count") == 3005


def test_metrics(shared):
    metrics = shared.metrics
    metrics.define(COUNTER, "a:b")
    metrics.add(COUNTER, "a:b", 2)
    metrics.record(GAUGE, "a:b", 2**64 - 1)
    metrics.record(GAUGE, "level", 7)
    metrics.snapshot()
    metrics.add(GAUGE, "level", -9)
    metrics.record(HISTOGRAM, "x" * 1000, 3)
    assert metrics.get(GAUGE, "level") == -2
    told = metrics.snapshot()
    assert told["counters"] == {"a:b": 2}
    assert told["gauges"]["level"] == -2
    assert told["histograms"]["x" * 1000]["counts"][2] == 1


# -- What goes wrong ---------------------------------------------------------------------------------------------------


def took(call) -> float:
    began = time.monotonic()
    call()
    return time.monotonic() - began


def refused(call):
    with pytest.raises(ServiceUnavailable):
        call()


def everything(shared, token):
    return [
        lambda: shared.data.get("vm", b"k"),
        lambda: shared.data.set("vm", b"k", b"v"),
        lambda: shared.queues.register("vm", b"q", print),
        lambda: shared.queues.resolve("vm", b"q"),
        lambda: shared.queues.enqueue(token, b""),
        lambda: shared.queues.dequeue(token),
    ]


@pytest.mark.parametrize("how", ["kill", "stop"])
def test_redis_is_away_and_comes_back(tmp_path, opened, how):
    server = Server(tmp_path)
    try:
        shared = opened(f"{server.url}?timeout=0.2")
        token = shared.queues.register("vm", b"q", print)
        shared.metrics.define(COUNTER, "c")
        shared.data.set("vm", b"k", b"v")
        server.process.send_signal(signal.SIGKILL if how == "kill" else signal.SIGSTOP)
        assert took(lambda: [refused(call) for call in everything(shared, token)]) < 1.0  # one waits, no other
        shared.metrics.add(COUNTER, "c", 3)
        assert shared.metrics.get(COUNTER, "c") == 3
        if how == "kill":
            server.process.wait()
            server.start()
        else:
            server.process.send_signal(signal.SIGCONT)
        eventually(lambda: _answers(shared))
        eventually(lambda: shared.metrics.snapshot()["counters"] == {"c": 3} and _answers(shared))
        eventually(lambda: shared.queues.resolve("vm", b"q") == token)
    finally:
        server.stop()


def set_again(shared) -> bool:
    return shared.data.set("vm", b"k", b"v")


def _answers(shared) -> bool:
    try:
        return set_again(shared)
    except ServiceUnavailable:
        return False


HOLD = """
import os, sys, time
from pathlib import Path
from proxywasm_host.services.shared.directory import directory
def hold(transaction, db):
    os.write(1, b"held\\n")
    time.sleep(60)
directory(Path(sys.argv[1])).write(hold)
"""


@pytest.mark.parametrize("how", ["stopped", "killed"])
def test_a_process_that_is_stopped_or_killed_while_it_writes(tmp_path, opened, how):
    path = tmp_path / "state"
    shared = opened(f"processes:{path}")
    token = shared.queues.register("vm", b"q", print)
    shared.metrics.define(COUNTER, "c")
    shared.data.set("vm", b"k", b"v")
    holder = subprocess.Popen([sys.executable, "-c", HOLD, str(path)], stdout=subprocess.PIPE)
    try:
        assert holder.stdout.readline() == b"held\n"
        if how == "stopped":
            assert shared.data.get("vm", b"k")[0] == b"v"  # to read, nobody waits
            with ThreadPoolExecutor(8) as threads:  # one waits in vain, and no other after it
                assert took(lambda: list(threads.map(lambda _: refused(lambda: set_again(shared)), range(8)))) < 5.0
            assert took(lambda: refused(lambda: shared.queues.dequeue(token))) < 0.5
            shared.metrics.add(COUNTER, "c", 3)
            assert took(shared.metrics.snapshot) < 5.0
            assert shared.metrics.get(COUNTER, "c") == 3
    finally:
        holder.kill()
        holder.communicate()
    eventually(lambda: _answers(shared))
    assert shared.queues.dequeue(token) is None
    assert how == "killed" or shared.metrics.snapshot()["counters"] == {"c": 3}


def test_a_thread_waits_for_others_that_write(tmp_path, opened, monkeypatch):
    """As long as a process waits for others, and not as short as for one that has stopped."""
    monkeypatch.setattr(of_directory, "WAIT", 0.02)
    path = tmp_path / "state"
    data = opened(f"processes:{path}").data
    data.set("vm", b"k", b"v")
    writing = threading.Event()

    def write(transaction, db) -> None:
        writing.set()
        time.sleep(0.2)

    other = threading.Thread(target=of_directory.directory(path).write, args=(write,))
    other.start()
    assert writing.wait(10)
    assert data.set("vm", b"k", b"w")
    other.join()


def test_who_waits_to_write_goes_on_waiting_while_others_write(tmp_path, opened, monkeypatch):
    monkeypatch.setattr(of_directory, "WAIT", 0.05)
    path = tmp_path / "state"
    data = opened(f"processes:{path}").data
    data.set("vm", b"k", b"1")
    env = of_directory.directory(path)._opened.env
    with (path / "writer").open("rb+") as writer:
        fcntl.flock(writer, fcntl.LOCK_EX)
        waiting = threading.Thread(target=data.set, args=("vm", b"k", b"2"))
        waiting.start()
        for _ in range(30):
            with env.begin(write=True) as transaction:
                transaction.put(b"other", os.urandom(4))
            time.sleep(0.01)
        assert waiting.is_alive()
        fcntl.flock(writer, fcntl.LOCK_UN)
        waiting.join()
    assert data.get("vm", b"k")[0] == b"2"


def test_what_is_kept_between_processes_is_bounded(tmp_path):
    directory = Directory(tmp_path / "state")
    data, queues = ProcessSharedData(directory, 1000, ttl=0.2), ProcessSharedQueues(directory, 10_000)
    try:
        data.set("vm", b"a", bytes(300))
        with pytest.raises(QuotaExceeded, match=r"^the shared data of vm_id 'vm' have 557 bytes, 557 more"):
            data.set("vm", b"b", bytes(300))
        assert data.set("other", b"b", bytes(300))
        time.sleep(0.25)
        assert data.set("vm", b"b", bytes(300))  # what is gone makes room
        data.clear("vm")
        assert data.get("vm", b"b") is None
        assert data.set("vm", b"c", bytes(700))
        token = queues.register("vm", b"q", lambda _: None)
        queues.enqueue(token, bytes(5000))
        with pytest.raises(QuotaExceeded):
            queues.enqueue(token, bytes(5000))
        assert queues.dequeue(token) == bytes(5000)
        queues.enqueue(token, bytes(5000))
    finally:
        queues.close()
        directory.close()


def test_a_full_store_looks_at_some_entries_each_time(tmp_path, monkeypatch):
    """So that no process waits for long; until all were looked at, there may be no room."""
    monkeypatch.setattr(processes, "LOOKED_AT", 4)
    data = ProcessSharedData(Directory(tmp_path / "store"), max_bytes=10 * (ENTRY + 3), ttl=3600)
    for number in range(10):
        data.set("vm", b"k%d" % number, b"v")
    with pytest.raises(QuotaExceeded):
        data.set("vm", b"no", b"v")
    monkeypatch.setattr(processes, "_over", bool)  # an hour later
    stored = 0
    for number in range(10):
        with contextlib.suppress(QuotaExceeded):
            data.set("vm", b"n%d" % number, b"v")
            stored += 1
    assert stored >= 8


def test_redis_without_room(tmp_path, opened):
    server = Server(tmp_path, "--maxmemory", "3mb")
    try:
        shared = opened(server.url)
        shared.data.set("vm", b"k", b"v")
        with pytest.raises(QuotaExceeded, match=r"^Redis at 127\.0\.0\.1:\d+ has no room: "):
            for number in range(100):
                shared.data.set("vm", b"%d" % number, bytes(100_000))
        assert shared.data.get("vm", b"k")[0] == b"v"
    finally:
        server.stop()


# -- How long state lives ----------------------------------------------------------------------------------------------


def test_state_lives_as_long_as_a_process_that_shares_it(tmp_path, opened):
    path = tmp_path / "state"
    one = opened(f"processes:{path}")
    one.data.set("vm", b"k", b"v")
    look = (
        "import sys; from proxywasm_host.services.shared import open_shared; "
        "print(open_shared(sys.argv[1]).data.get('vm', b'k'))"
    )
    said = [sys.executable, "-c", look, f"processes:{path}"]
    assert subprocess.check_output(said) == b"(b'v', 1)\n"
    assert path.exists()
    one.close()
    assert not path.exists()
    assert subprocess.check_output(said) == b"None\n"
    assert not path.exists()


def test_what_those_left_who_were_killed_is_gone(tmp_path, opened):
    path = tmp_path / "state"
    kill = (
        "import os, sys; from proxywasm_host.services.shared import open_shared; "
        "open_shared(sys.argv[1]).data.set('vm', b'k', b'v'); os.kill(os.getpid(), 9)"
    )
    subprocess.run([sys.executable, "-c", kill, f"processes:{path}"])
    assert (path / "data.mdb").exists()
    assert opened(f"processes:{path}").data.get("vm", b"k") is None


def test_a_fork_has_the_state_of_its_parent(tmp_path, opened):
    shared = opened(f"processes:{tmp_path / 'state'}")
    shared.data.set("vm", b"k", b"parent")
    shared.metrics.add(COUNTER, "c", 1)
    fork = f"""
import os
from proxywasm_host.services.shared import open_shared
shared = open_shared({f"processes:{tmp_path / 'state'}"!r})
token = shared.queues.register("vm", b"q", print)
shared.metrics.define(0, "c")
shared.metrics.add(0, "c", 10)
child = os.fork()
shared.data.set("vm", b"child" if not child else b"parent", shared.data.get("vm", b"k")[0])
shared.metrics.add(0, "c", 100)
shared.queues.enqueue(token, b"")
shared.close()
if child:
    os.waitpid(child, 0)
"""
    subprocess.run([sys.executable, "-c", fork], check=True)
    assert [shared.data.get("vm", key)[0] for key in (b"child", b"parent")] == [b"parent", b"parent"]
    assert shared.metrics.snapshot()["counters"] == {"c": 211}


def test_a_fork_while_other_threads_use_the_state(tmp_path):
    """A child has only the thread that forked, so it would wait forever for what others have begun."""
    fork = f"""
import os, threading
from proxywasm_host.services.shared import open_shared
shared = open_shared({f"processes:{tmp_path / 'state'}"!r})
shared.data.set("vm", b"k", b"v")
over = threading.Event()
def use():
    while not over.is_set():
        shared.data.set("vm", b"other", shared.data.get("vm", b"k")[0])
others = [threading.Thread(target=use) for _ in range(4)]
for other in others:
    other.start()
for _ in range(50):
    if not (child := os.fork()):
        os._exit(shared.data.get("vm", b"k") != (b"v", 1))
    assert os.waitpid(child, 0)[1] == 0
over.set()
"""
    subprocess.run([sys.executable, "-W", "ignore::DeprecationWarning", "-c", fork], check=True, timeout=60)


def test_a_fork_amid_a_use(tmp_path):
    """As a signal handler may do it."""
    fork = f"""
import os
from pathlib import Path
from proxywasm_host.services.shared.directory import Directory, directory
from proxywasm_host.services.unavailable import ServiceUnavailable
state = directory(Path({str(tmp_path / "state")!r}))
def look(transaction, databases):
    child = os.fork()
    transaction.get(b"k", db=databases[b"data"])
    return child
try:
    child = state.read(look)
except ServiceUnavailable as error:
    os._exit("does not answer" not in str(error))
assert os.waitpid(child, 0)[1] == 0
state.enter()
"""
    subprocess.run([sys.executable, "-c", fork], check=True, timeout=60)


def test_a_fork_goes_on_counting_for_all(tmp_path, opened):
    """Metrics that were defined before it are added up although it never ends."""
    choice = f"processes:{tmp_path / 'state'}"
    shared = opened(choice)
    fork = f"""
import os, time
from proxywasm_host.services.shared import open_shared
shared = open_shared({choice!r})
shared.metrics.define(0, "c")
if not os.fork():
    shared.metrics.add(0, "c", 7)
    time.sleep(60)
os.wait()
"""
    process = subprocess.Popen([sys.executable, "-c", fork], start_new_session=True)
    try:
        eventually(lambda: shared.metrics.snapshot()["counters"] == {"c": 7}, 30)
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def test_a_directory_of_others(tmp_path, opened):
    path = tmp_path / "state"
    path.mkdir(mode=0o777)
    path.chmod(0o777)
    with pytest.raises(ConfigError, match=r"^\S+/state is not a directory that only this user can write to"):
        opened(f"processes:{path}").data.get("vm", b"k")
    path.chmod(0o700)
    (path / "precious").write_text("")
    with pytest.raises(ConfigError, match=r"^\S+/state contains precious, and its content would be removed"):
        opened(f"processes:{path}").data.get("vm", b"k")
    assert (path / "precious").exists()


# -- The choice --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("choice", "said"),
    [
        ("", "shared cannot be '': write it as memory, processes, "),
        ("process", "shared cannot be 'process': write it as memory, processes, "),
        ("processes:a/b", "shared cannot be 'processes:a/b': write it as "),
        ("processes:../x", "shared cannot be "),
        ("redis://", "shared cannot be 'redis://': write it as "),
        ("http://127.0.0.1", "shared cannot be "),
        ("memory?ttl=0", "shared: ttl is a number of seconds, not '0': write ttl=60"),
        ("redis://h?timeout=nan", "shared: timeout is a number of seconds, not 'nan': write timeout=60"),
        ("processes?timeout=1", "shared: 'timeout' is not an option of 'processes', which has only ttl=SECONDS"),
    ],
)
def test_what_is_no_choice(choice, said):
    with pytest.raises(ValueError) as caught:
        check_shared(choice)
    assert str(caught.value).startswith(said)
