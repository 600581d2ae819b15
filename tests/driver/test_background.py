"""What guests bring about by themselves has half of the time, plugins in turn; the clock is the test's."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest

from proxywasm_host import Host, Services
from proxywasm_host.driver.background import AT_ONCE, CALLOUT, BackgroundWork
from proxywasm_host.driver.dispatch import Dispatcher
from proxywasm_host.runtime.effects import CalloutFailed, HttpCall, QueueReady
from tests.support import REQUEST, Lines, code


@dataclass
class Clock:
    now: float = 100.0

    def __call__(self) -> float:
        return self.now


def work(clock: Clock, seconds: float, done: list[str], name: str, again: Callable[[], object] | None = None) -> Any:
    """Work that takes so long, and may bring itself about again."""

    def run() -> list[Any]:
        clock.now += seconds
        done.append(name)
        if again is not None:
            again()
        return []

    return run


@pytest.mark.parametrize("seconds", [0.0001, 0.001, 0.02, 0.5])
def test_half_of_the_time(seconds: float) -> None:
    clock, done = Clock(), []
    background = BackgroundWork(clock)
    plugin: Any = object()

    def again() -> None:
        background.add(plugin, work(clock, seconds, done, "own", again))

    again()
    rested = 0.0
    while clock.now < 110:
        wait = background.wait()
        assert wait is not None
        rested += wait
        clock.now += wait  # what others do
        background.next()
    assert seconds * len(done) == pytest.approx(10 / 2, rel=0.15)
    assert rested == pytest.approx(10 / 2, rel=0.15)


def test_what_comes_now_and_then_never_waits() -> None:
    clock, done = Clock(), []
    background = BackgroundWork(clock)
    for _ in range(1000):
        background.add(object(), work(clock, AT_ONCE / 10, done, "reply"))  # type: ignore[arg-type]
        assert background.wait() == 0
        background.next()
        clock.now += AT_ONCE / 5
    assert background.wait() is None


def test_plugins_take_turns() -> None:
    clock, done = Clock(), []
    background = BackgroundWork(clock)
    one, two, three = plugins = [object(), object(), object()]
    for name, plugin, count in (("one", one, 4), ("two", two, 2), ("three", three, 1)):
        for _ in range(count):
            background.add(plugin, work(clock, 0, done, name))  # type: ignore[arg-type]
    while background.wait() is not None:
        background.next()
    assert done == ["one", "two", "three", "one", "two", "one", "one"]
    assert len(plugins) == 3


def test_callouts_count_although_they_take_no_time_here() -> None:
    clock = Clock()
    background = BackgroundWork(clock)
    for _ in range(20):
        background.add(None, list, CALLOUT)  # type: ignore[arg-type]
    while background.wait() == 0:
        background.next()
    assert background.wait() == pytest.approx(2 * CALLOUT)


# -- Among effects -----------------------------------------------------------------------------------------------------


@dataclass
class Driver:
    """A driver whose time passes only when the test says so."""

    host: Host
    clock: Clock = field(default_factory=Clock)
    calls: list[HttpCall] = field(default_factory=list)
    cancelled: list[int] = field(default_factory=list)
    later: list[float] = field(default_factory=list)

    def __post_init__(self) -> None:
        outer = self

        class Made(Dispatcher):
            def _arm(self, plugin: Any, milliseconds: int) -> None:
                pass

            def _call(self, callout: Any) -> bool:
                outer.calls.append(callout)
                return True

            def _cancel(self, plugin: Any, token: int) -> None:
                outer.cancelled.append(token)

            def _later(self, seconds: float, function: Any) -> None:
                outer.later.append(seconds)

        self.made = Made(self.host)
        self.made._background = BackgroundWork(self.clock)

    def rest(self) -> None:
        self.clock.now += self.later.pop()
        self.made._rested()

    def fail(self) -> None:
        """The callouts that were made fail, each in a millisecond of a guest's time."""
        calls, self.calls = self.calls, []
        for call in calls:
            self.clock.now += 0.001
            self.made._deliver(call, CalloutFailed("reset"))


@pytest.fixture
def load(engine: Any) -> Iterator[Callable[..., tuple[Driver, list[Any], Lines]]]:
    hosts: list[Host] = []

    def load(*scripts: str, **options: Any) -> tuple[Driver, list[Any], Lines]:
        log = Lines()
        host = Host(engine, services=Services(log=log, clusters={"up"}))
        hosts.append(host)
        plugins = [
            host.load_plugin(code("c/probe_0_2_1"), name=f"probe {n}", vm_id=str(n), configuration=script, **options)
            for n, script in enumerate(scripts)
        ]
        return Driver(host), plugins, log

    yield load
    for host in hosts:
        host.close()


CALL = 'http_call up :method=GET&:path=/&:authority=a "" "" 0'
FEEDS_ITSELF = (
    "@on_configure\nregister_shared_queue q\nenqueue_shared_queue 1 a\n@on_queue_ready\nenqueue_shared_queue 1 a"
)


def test_a_queue_that_feeds_itself_leaves_room(load: Callable[..., Any]) -> None:
    driver, _, log = load(FEEDS_ITSELF, "@on_request_headers\nsay request")
    spent = driver.made._background
    original = spent.next

    def slow() -> Any:
        driver.clock.now += 0  # before the work
        result = original()
        spent._paid += 0.002  # as if each message took a millisecond
        return result

    spent.next = slow  # type: ignore[method-assign]
    driver.made.perform(driver.host.drain())
    assert len(driver.later) == 1, "it rests, and perform has returned"
    turns = log.messages.count("enqueue_shared_queue(1, a) = 0")
    for _ in range(10):
        log.take()
        driver.made.perform(driver.host.drain())  # what others bring does not end the rest
        assert log.messages == []
        driver.rest()
        driver.made.perform(driver.host.drain())
        assert 0 < log.messages.count("enqueue_shared_queue(1, a) = 0") <= turns
    driver.made._forget()
    assert driver.made._background.wait() is None


def test_callouts_that_fail_and_are_made_again_wait_for_their_turn(load: Callable[..., Any]) -> None:
    driver, (again, other), _ = load(
        f"@on_configure\n{CALL}\n{CALL}\n{CALL}\n@on_http_call_response\n{CALL}",
        f"@on_request_headers\n{CALL}\nreturn 1",
    )
    driver.made.perform(driver.host.drain())
    assert [call.token for call in driver.calls] == [4, 8, 12], "what is not made in an answer is made at once"
    for _ in range(30):
        driver.fail()
    assert driver.later and len(driver.calls) < 3, "the share is used up"
    with driver.host.http_stream([other]) as stream:
        before = len(driver.calls)
        driver.made.perform(stream.request_headers(REQUEST, end_stream=True))
        assert len(driver.calls) == before + 1, "a request's callout is made at once"
    while driver.later:
        driver.rest()
    assert again.failure is None


def test_a_callout_that_is_cancelled_before_its_turn_is_never_made(load: Callable[..., Any]) -> None:
    driver, (plugin,), _ = load(f"@on_configure\n{CALL}\n@on_http_call_response\n{CALL}")
    driver.made.perform(driver.host.drain())
    (first,) = driver.calls
    driver.made._background._paid = driver.clock.now + 5
    driver.made._deliver(first, CalloutFailed("reset"))
    driver.clock.now += 5
    driver.made._background.next()
    driver.rest()
    driver.made._rests = True
    driver.made.perform(plugin.close())
    driver.calls.clear()
    driver.made._rested()
    assert driver.calls == []


def test_ticks_that_come_while_one_waits_are_one(load: Callable[..., Any]) -> None:
    driver, (plugin,), log = load("@on_configure\nset_tick_period_milliseconds 1\n@on_tick\nsay tick")
    driver.made.perform(driver.host.drain())
    driver.made.tick(plugin)
    assert log.messages.count("tick") == 1
    driver.made._background._paid = driver.clock.now + 1
    for _ in range(5):
        driver.made.tick(plugin)
    assert log.messages.count("tick") == 1
    driver.rest()
    assert log.messages.count("tick") == 2


def test_effects_of_queues_are_not_lost(load: Callable[..., Any]) -> None:
    driver, (plugin,), log = load("@on_configure\nregister_shared_queue q\n@on_queue_ready\nsay $token")
    driver.made.perform([*driver.host.drain(), *[QueueReady(plugin, 1)] * 500])
    assert log.messages.count("unknown instruction: say") == 0
    assert len([line for line in log.messages if not line.startswith("register")]) == 500


def test_guests_that_fail_again_and_again_have_half_of_the_time_to_start(load: Callable[..., Any]) -> None:
    driver, plugins, _ = load(*["@on_request_headers\ntrap"] * 3, failure_policy="fail_reload", reload_interval=0)
    started: list[Any] = []

    def slow(plugin: Any, original: Callable[[], None]) -> Callable[[], None]:
        def heal() -> None:
            original()
            driver.clock.now += 0.5
            started.append(plugin)

        return heal

    for plugin in plugins:
        with driver.host.http_stream([plugin]) as stream:
            stream.request_headers(REQUEST)
        assert plugin.failure is not None
        plugin._retry_at = 0.0
        plugin.heal = slow(plugin, plugin.heal)
    for plugin in plugins:
        driver.made._heal(plugin)
    assert started == plugins[:1], "the others wait for their turn"
    for count in (2, 3):
        assert driver.later == [pytest.approx(0.5, abs=3 * AT_ONCE)]
        driver.rest()
        assert started == plugins[:count]
    assert [plugin.failure for plugin in plugins] == [None] * 3
