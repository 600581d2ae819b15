"""What of a host's streams becomes a recording, what bounds it, what is left out, and how a replay meets a changed module."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from proxywasm_host import FilterConfig, Host, Match, Rule, Services, by_rule
from proxywasm_host.driver.dispatch import Dispatcher
from proxywasm_host.effects import HttpCall, HttpCallReply
from proxywasm_host.errors import ConfigError, ModuleError
from proxywasm_host.hostcalls import data, data_out, hostcall, u32_out
from proxywasm_host.recording import Record, Recording, replay
from tests.cli.conftest import command
from tests.support import FILTERS, REQUEST

__all__ = ["command"]

AUTH, PANICS, PROBE = FILTERS / "rust/auth.wasm", FILTERS / "rust/panics.wasm", FILTERS / "c/probe_0_2_1.wasm"
CLOSED = ["proxy_on_log()", "proxy_on_done() = 1", "proxy_on_delete()"]


class Recorded:
    """A host whose streams are recorded, and what was."""

    def __init__(self, engine: Any, directory: Path, **options: Any) -> None:
        self.directory = directory
        self.host = Host(engine, services=Services(clusters={"idp"}))
        self.driver = Dispatcher(self.host, record=Record(directory, **options))

    def request(
        self, plugin: Any, headers: Any = (), body: bytes = b"", answers: dict[str, Any] | None = None, status: int = 200
    ) -> None:
        """A whole request; `answers` are replies to callouts by cluster."""
        stream = self.host.http_stream([plugin])
        self.driver.attach(stream, lambda _: None)
        todo = stream.request_headers([*REQUEST, *headers], not body)
        if body:
            todo += stream.request_body(body, True)
        for effect in todo:
            if isinstance(effect, HttpCall) and answers:
                self.host.deliver(effect, answers[effect.cluster])
        if stream.local is None:
            stream.response_headers([(b":status", b"%d" % status)], True)
        self.driver.detach(stream)
        stream.close()

    @property
    def files(self) -> list[str]:
        return sorted(file.name for file in self.directory.iterdir())

    @property
    def recordings(self) -> list[Recording]:
        return [Recording.load(self.directory / file) for file in self.files]


@pytest.fixture
def recorded(engine, tmp_path):
    made = []

    def make(**options: Any) -> Recorded:
        made.append(Recorded(engine, tmp_path / "recordings", **options))
        return made[-1]

    yield make
    for each in made:
        each.host.close()


def test_what_is_in_a_recording(recorded, engine):
    here = recorded(redact_credentials=False)
    auth = here.host.load_plugin(AUTH, configuration="callout:idp")
    here.request(auth, answers={"idp": HttpCallReply([(b":status", b"403")], b"no")})
    [recording] = here.recordings
    assert [(event.event, {**event.given}) for event in recording.start] == [("start", {"plugin": "auth"})]
    assert [event.event for event in recording.events] == ["request_headers", "reply", "close"]
    assert recording.events[1].given == {
        "plugin": "auth", "cluster": "idp", "number": 1, "reply": HttpCallReply([(b":status", b"403")], b"no"),
    }  # fmt: skip
    assert recording.events[1].did[-3:] == [
        "  proxy_log(level=INFO, message='auth: denied with 403') = OK",
        "  proxy_send_local_response(status=403, details='', body='denied by idp\\n', headers=[], grpc_status=-1) = OK",
        "auth: proxy_on_response_headers(4, 0) = 0",
    ] or recording.events[1].did
    assert recording.outcome["status"] == 403
    assert recording.engine == engine.name
    assert Recording.of_json(json.loads(recording.dump())) == recording


def test_a_later_request_has_other_numbers_and_replays_with_them(recorded):
    """Guests log the numbers of contexts and callouts; a replay gives them out again."""
    here = recorded()
    auth = here.host.load_plugin(AUTH, configuration="callout:idp")
    for _ in range(5):
        here.request(auth, answers={"idp": HttpCallReply([(b":status", b"200")])})
    last = here.recordings[-1]
    assert "  proxy_log(level=INFO, message='auth: asking idp, token 20') = OK" in last.lines
    assert last.contexts == [6]
    assert replay(last).first_difference is None


def test_a_changed_module_gets_replies_for_what_else_it_asks(recorded):
    """auth asks once; the probe asks twice: the second gets the reply that the cluster gave last."""
    here = recorded()
    auth = here.host.load_plugin(AUTH, configuration="callout:idp")
    here.request(auth, answers={"idp": HttpCallReply([(b":status", b"200")], b"yes")})
    [recording] = here.recordings
    call = "http_call idp :method=GET&:path=/&:authority=idp \"\" \"\" 1000"
    recording.filters[0] = type(recording.filters[0])(
        PROBE, name="auth", configuration=f"\n@on_request_headers\n{call}\n{call}\n"
    )
    again = replay(recording)
    assert [line for line in again.lines if "on_http_call_response" in line] == [
        "auth: proxy_on_http_call_response(1, 3, 0)",
        "auth: proxy_on_http_call_response(1, 3, 0)",
    ]
    assert again.first_difference is not None


def test_one_of_so_many_is_recorded(recorded, probe_of):
    here = recorded(sample=3)
    plugin = probe_of(here)
    for _ in range(7):
        here.request(plugin)
    assert len(here.files) == 3


def test_only_what_fails_is_written(recorded):
    here = recorded(failures_only=True)
    plugin = here.host.load_plugin(PROBE, configuration="")
    here.request(plugin)
    assert here.files == []
    here.request(plugin, status=500)
    here.request(here.host.load_plugin(PANICS, configuration="request_headers"))
    assert [file.rpartition("-")[2] for file in here.files] == ["500.json", "failed.json"]


def test_the_oldest_go(recorded, probe_of):
    here = recorded(max_files=2)
    plugin = probe_of(here)
    (here.directory / "mine.json").write_text("not ours")
    for status in (201, 202, 203):
        here.request(plugin, status=status)
    assert [file.rpartition("-")[2] for file in here.files] == ["202.json", "203.json", "mine.json"]


def test_what_is_too_long_is_cut(recorded, probe_of, command):
    here = recorded(max_bytes=2000)
    here.request(probe_of(here), body=b"x" * 3000)
    [recording] = here.recordings
    assert [event.event for event in recording.events] == ["request_headers"]
    assert recording.cut
    assert "is incomplete: the recording reached its size limit" in command("replay", here.directory / here.files[0]).complaint


def test_nothing_is_looked_at_that_is_not_recorded(recorded, probe_of):
    """Beside the attribute that a driver looks at: no listener, and a stream of the usual type."""
    here = recorded(sample=100)
    plugin = probe_of(here)
    here.request(plugin)
    plain = here.host.http_stream([plugin])
    here.driver.attach(plain, lambda _: None)
    assert type(plain) is here.host._stream_type
    assert plugin._vm.listener is None


def test_secrets_are_masked_and_equal_ones_stay_equal(recorded):
    here = recorded(redact=["x-key"])
    auth = here.host.load_plugin(AUTH, configuration="open-sesame")
    headers = [(b"authorization", b"Bearer open-sesame"), (b"x-key", b"a value of mine"), (b"cookie", b"id=12345678; b=2")]
    here.request(auth, headers)
    [recording] = here.recordings
    text = recording.dump()
    assert [word for word in ("open-sesame", "value of mine", "12345678") if word in text] == []
    assert recording.filters[0].configuration == b"*1*********"
    assert dict(recording.events[0].given["headers"])[b"authorization"] == b"Bearer *1*********"
    assert [event.event for event in replay(recording).recording.events] == [event.event for event in recording.events]
    assert replay(recording).first_difference is None


def test_bodies_are_blank_if_wanted(recorded):
    here = recorded(redact_bodies=True)
    script = "\n@on_request_body\nget_buffer_bytes 0 0 100\n"
    here.request(here.host.load_plugin(PROBE, configuration=script), body=b"private")
    [recording] = here.recordings
    assert [line for line in recording.lines if "private" in line and "proxy_log" not in line] == []
    assert recording.events[1].given == {"data": b"xxxxxxx", "end_stream": True}
    assert any("OK 'xxxxxxx'" in line for line in recording.lines)


def test_what_cannot_be_written_is_told_and_the_request_goes_on(recorded, probe_of, caplog, monkeypatch):
    here = recorded()
    plugin = probe_of(here)
    here.directory.rmdir()
    here.request(plugin)
    monkeypatch.setattr(Recording, "dump", lambda _: 1 / 0)
    here.request(plugin)
    first, second = caplog.records
    assert first.getMessage().endswith("-200.json: No such file or directory")
    assert second.getMessage().endswith("-200.json; its request continues")


def test_text_that_is_none_comes_back(recorded, probe_of):
    here = recorded()
    stream = here.host.http_stream([probe_of(here)])
    here.driver.attach(stream, lambda _: None)
    stream.request_headers(REQUEST, True)
    stream.close("\udcff Bearer 12345678")
    [recording] = here.recordings
    assert recording.events[-1].given == {"details": "\udcff Bearer *1******"}


def test_what_shares_a_vm_with_a_filter_is_recorded_and_replayed(recorded):
    """Here two of one name, of which the second to start is in the chain, and the first has a tick meanwhile."""
    here = recorded()
    own, ticks = (
        "\n@on_request_headers\nsay mine\n",
        "\n@on_configure\nset_tick_period_milliseconds 1000\n@on_tick\nget_current_time_nanoseconds\n",
    )
    filters = by_rule(FilterConfig(PROBE, name="p", configuration=own), [Rule(Match(paths=["/a"]), ticks)])
    neighbour, plugin = [here.host.load_plugin(filter) for filter in filters]
    assert plugin._vm is neighbour._vm
    stream = here.host.http_stream([plugin])
    here.driver.attach(stream, lambda _: None)
    stream.request_headers(REQUEST, True)
    neighbour.tick()
    here.driver.detach(stream)
    stream.close()
    [recording] = here.recordings
    assert [each.given for each in recording.start] == [{"plugin": "p", "nth": 1}, {"plugin": "p"}]
    assert [(each.event, each.given) for each in recording.events][1] == ("tick", {"plugin": "p", "nth": 1})
    assert Recording.of_json(json.loads(recording.dump())) == recording
    assert replay(recording).first_difference is None


def test_hostcalls_of_an_embedder_are_given_to_the_replay_too(engine, tmp_path):
    @hostcall("proxy_get_secret", data("name"), data_out("secret"))
    def get_secret(vm, name):
        return b"s3cret"

    @hostcall("proxy_kv_store_open", data("name"), u32_out("handle"))
    def kv_store_open(vm, name):
        return 7

    ours = [get_secret, kv_store_open]
    with Host(engine, hostcalls=ours) as host:
        driver = Dispatcher(host, record=Record(tmp_path, redact_credentials=False))
        stream = host.http_stream([host.load_plugin(FILTERS / "c/secrets.wasm", configuration="token")])
        driver.attach(stream, lambda _: None)
        stream.request_headers(REQUEST, True)
        stream.close()
    [file] = tmp_path.iterdir()
    assert replay(Recording.load(file), hostcalls=ours).first_difference is None
    with pytest.raises(ModuleError, match="proxy_get_secret"):
        replay(Recording.load(file))


@pytest.fixture
def probe_of():
    return lambda here: here.host.load_plugin(PROBE, configuration="\n@on_request_headers\nget_header_map_pairs 0\n")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"directory": 1}, "directory is a path: Record('recordings'), not 1"),
        ({"directory": "d", "redact": "x"}, "redact is a list of names: write ['x-token'], not 'x'"),
        ({"directory": "d", "sample": True}, "sample is a whole number, not True"),
        ({"directory": "d", "max_files": 0}, "max_files is 1 or more, not 0"),
    ],
)
def test_what_is_wrong_is_told(arguments, said):
    with pytest.raises((TypeError, ValueError)) as error:
        Record(**arguments)
    assert str(error.value) == said


def test_a_directory_that_cannot_be_made(engine, tmp_path):
    (tmp_path / "file").touch()
    with Host(engine) as host, pytest.raises(ConfigError, match=r"cannot record in .*: Not a directory"):
        Dispatcher(host, record=Record(tmp_path / "file" / "in it"))
