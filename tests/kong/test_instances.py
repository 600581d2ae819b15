"""Instances of a plugin in a plugin server: one start for all who want one, and one failure; nothing is connected here."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from proxywasm_host.kong.plugin import PluginFailed
from proxywasm_host.kong.servers.events import Done, Refused, Started
from proxywasm_host.kong.servers.plugin import ServerPlugin
from proxywasm_host.kong.servers.pool import Said
from proxywasm_host.kong.task import Task

INFO = {"Name": "p", "Priority": 1, "Version": "1", "Phases": ["access"], "Schema": {"fields": [{"config": {"fields": []}}]}}
CONNECTION = SimpleNamespace(epoch=0, close=lambda: None)


class Performer:
    """Notes what tasks ask."""

    def __init__(self):
        self.asked = []

    def call(self, task, effect):
        self.asked.append((task, effect.message.method))
        return len(self.asked)

    def cancel(self, token):
        pass


@pytest.fixture
def performer():
    return Performer()


@pytest.fixture
def ended():
    return []


@pytest.fixture
def tasks(performer, ended):
    """Three requests that want the plugin at once."""
    plugin = ServerPlugin("server", INFO)
    made = [Task(performer, plugin.run("access", SimpleNamespace(), {}), ended.append) for _ in range(3)]
    for task in made:
        task.resume()
    return made


def methods(performer):
    return [method for _, method in performer.asked]


def test_one_starts_and_the_others_wait(performer, tasks, ended):
    assert methods(performer) == ["start_instance"]
    tasks[0].resume(Said(CONNECTION, Started(7)))
    assert methods(performer)[1:] == ["handle_event"] * 3
    for task in tasks:
        task.resume(Said(CONNECTION, Done()))
    assert ended == [None] * 3


def test_another_starts_if_the_first_one_s_client_leaves(performer, tasks, ended):
    tasks[0].cancel()
    assert performer.asked[1:] == [(tasks[1], "start_instance")]
    tasks[1].resume(Said(CONNECTION, Started(7)))
    assert [task for task, _ in performer.asked[2:]] == [tasks[2], tasks[1]]


@pytest.mark.parametrize("answer", [{"failure": "timeout"}, {"value": Said(CONNECTION, Refused("broken"))}], ids=["no answer", "refused"])
def test_a_start_that_fails_fails_for_all(performer, tasks, ended, answer):
    for _ in range(2):  # an instance is asked for twice, as whoever comes alone does
        starter = performer.asked[-1][0]
        starter.resume(**answer)
    while len(ended) < 3:
        performer.asked[-1][0].resume(**answer)
    assert {type(error) for error in ended} == {PluginFailed}
    assert len(performer.asked) <= 4
