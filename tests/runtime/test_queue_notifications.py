"""What a plugin is told of its queues: each message once, however many come while nobody takes what is told."""

from __future__ import annotations

from collections import Counter, deque
from threading import Thread

from hypothesis import given
from hypothesis import strategies as st

from proxywasm_host import Host, Services
from proxywasm_host.runtime.effects import QueueReady
from proxywasm_host.runtime.queue_notifications import AT_ONCE, QueueNotifications
from tests.support import Lines, code


@given(st.lists(st.integers(1, 3) | st.just(0), max_size=80), st.integers(0, AT_ONCE))
def test_each_message_is_told_once(steps, before):
    """A number is a message in a queue of that token, 0 is that one is taken."""
    out = deque()
    notifications = QueueNotifications(out.append)
    came, taken = Counter(), Counter()

    def take():
        token = out.popleft()
        taken[token] += 1
        notifications.acknowledge()

    for step in [9] * before + steps:
        if step:
            came[step] += 1
            notifications.add(step)
        elif out:
            take()
        assert len(out) == min(AT_ONCE, (came - taken).total())
    while out:
        take()
    assert taken == came


def test_no_message_is_lost_between_threads():
    out, taken = deque(), Counter()
    notifications = QueueNotifications(out.append)
    threads = [Thread(target=lambda token=token: [notifications.add(token) for _ in range(3000)]) for token in range(4)]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads) or out:
        assert len(out) <= AT_ONCE
        if out:
            taken[out.popleft()] += 1
            notifications.acknowledge()
    assert taken == Counter(dict.fromkeys(range(4), 3000))


def test_a_flood_of_messages_while_nobody_takes_effects(engine):
    """A filter reads one message each time it is told."""
    log = Lines()
    with Host(engine, services=Services(log=log)) as host:
        script = "@on_configure\nregister_shared_queue q\n@on_queue_ready\ndequeue_shared_queue 1"
        plugin = host.load_plugin(code("c/probe_0_2_1"), configuration=script)
        queues = host.services.shared_queues
        for number in range(3 * AT_ONCE):
            queues.enqueue(1, b"%d" % number)
        todo = deque(host.drain())
        assert todo == deque([QueueReady(plugin, 1)] * AT_ONCE)
        log.lines.clear()
        while todo:
            todo.extend(plugin.queue_ready(todo.popleft().token))
        assert log.messages == [f'dequeue_shared_queue(1) = 0 "{number}"' for number in range(3 * AT_ONCE)]
