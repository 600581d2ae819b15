"""Properties that the embedder gives: by which paths filters find them, and which are refused when they are given."""

from __future__ import annotations

from collections import UserDict
from datetime import datetime, timedelta, timezone

import pytest

from proxywasm_host import Host
from tests.support import REQUEST, code


def asked(*paths: str) -> str:
    return "\n".join(["@on_request_headers", *(f"get_property {path}" for path in paths)])


def answers(log) -> list[str]:
    return [line.partition(" = ")[2] for line in log.take()]


GIVEN = {
    "source.client_region": "eu",
    "request.country": "LU",
    "metadata.geo": {"city": "Esch", "at.home": b"yes"},
    "route": {"name": {"short": "r"}},
    "plain": "p",
    "request.path": "/given",
}
FOUND = {
    "source.client_region": '0 "eu"',
    "source%00client_region": '0 "eu"',
    "request.country": '0 "LU"',
    "request%00country": '0 "LU"',
    "metadata.geo%00city": '0 "Esch"',
    "metadata%00geo%00city": '0 "Esch"',
    "metadata.geo.city": '0 "Esch"',
    "metadata%00geo%00at.home": '0 "yes"',
    "route.name.short": '0 "r"',
    "route%00name.short": "1",  # a key with a dot
    "plain": '0 "p"',
    "plain.more": "1",
    "metadata.geo.nowhere": "1",
    "source.client_regio": "1",
    "request%00path": '0 "/given"',
    "request.path": "1",  # Envoy's own names have their dots between segments
    "request.method": "1",
    "request.headers%00user-agent": "1",
    "request%00method": '0 "GET"',
}


def test_a_property_of_a_stream_is_found_wherever_the_dots_of_its_name_are(host, probe, log):
    with host.http_stream([probe(asked(*FOUND))], properties=GIVEN) as stream:
        stream.request_headers(REQUEST, True)
    assert dict(zip(FOUND, answers(log), strict=True)) == FOUND


OF_THE_HOST = [path for path, found in FOUND.items() if not path.startswith("request") and found != "1"]


def test_so_is_one_of_the_host(host, probe, log):
    host.properties = GIVEN
    with host.http_stream([probe(asked(*OF_THE_HOST))]) as stream:
        stream.request_headers(REQUEST, True)
    assert answers(log) == [FOUND[path] for path in OF_THE_HOST]


def test_so_is_one_of_a_connection(host, probe, log):
    script = "\n".join(["@on_new_connection", *(f"get_property {path}" for path in OF_THE_HOST)])
    stream = host.tcp_stream([probe(script)], properties=GIVEN)
    stream.new_connection()
    stream.close()
    assert answers(log) == [FOUND[path] for path in OF_THE_HOST]


def test_a_path_of_a_million_dots_is_refused(host, probe, log):
    with host.http_stream([probe(asked("fill:.:1000000", "fill:a.:1000000"))], properties=GIVEN) as stream:
        stream.request_headers(REQUEST, True)
    assert answers(log) == ["2", "2"]


@pytest.mark.parametrize("mapping", [dict, UserDict])
def test_what_is_put_into_an_empty_mapping_later_is_found(engine, services, log, mapping):
    of_host, of_stream = mapping(), mapping()
    with Host(engine, services=services, properties=of_host) as host:
        plugin = host.load_plugin(code("c/probe_0_2_1"), configuration=asked("xds%00cluster_name", "source%00address"))
        with host.http_stream([plugin], properties=of_stream) as stream:
            of_host["xds.cluster_name"] = "later"
            of_stream["source.address"] = "192.0.2.1:1"
            stream.request_headers(REQUEST, True)
        connection = {}
        assert host.tcp_stream([plugin], properties=connection).properties is connection
    assert answers(log) == ['0 "later"', '0 "192.0.2.1:1"']


MAY_BE = (
    "; give text, bytes, a number of at most 64 bits, a bool, a datetime with a time zone, a timedelta, None, "
    "or a mapping or a list of these"
)
REFUSED = {
    "a set": ({"a.b": {1}}, TypeError, "property 'a.b': a set has no form in the ABI" + MAY_BE),
    "an object within": ({"a": {"b": [object()]}}, TypeError, "property 'a': a object has no form in the ABI" + MAY_BE),
    "a large number": ({"a": 1 << 64}, ValueError, f"property 'a': {1 << 64} needs more than 64 bits{MAY_BE}"),
    "a time without a zone": (
        {"ok": 1, "a": datetime(2026, 1, 1)},  # noqa: DTZ001 - which is what is wrong
        ValueError,
        f"property 'a': datetime.datetime(2026, 1, 1, 0, 0) has no time zone{MAY_BE}",
    ),
    "half a character": ({"a": "\ud800"}, ValueError, f"property 'a': '\\ud800' is not Unicode text{MAY_BE}"),
    "a name of bytes": (
        {b"a": 1},
        TypeError,
        "a property is named by text with dots, such as 'source.address', not by b'a'",
    ),
    "a list": (
        [("a", 1)],
        TypeError,
        "properties are a mapping of dotted names to values, not [('a', 1)]",
    ),
    "text": ("a=1", TypeError, "properties are a mapping of dotted names to values, not 'a=1'"),
    "nothing much": (0, TypeError, "properties are a mapping of dotted names to values, not 0"),
}


@pytest.mark.parametrize(("given", "kind", "says"), REFUSED.values(), ids=REFUSED)
def test_what_no_filter_could_read_is_refused_when_it_is_given(host, probe, given, kind, says):
    plugin = probe()
    for give in (
        lambda: Host(host.engine, properties=given),
        lambda: setattr(host, "properties", given),
        lambda: host.http_stream([plugin], properties=given),
        lambda: host.tcp_stream([plugin], properties=given),
    ):
        with pytest.raises(kind) as refused:
            give()
        assert str(refused.value) == says
    with host.http_stream([plugin], properties={}) as stream:  # and nothing has begun
        stream.request_headers(REQUEST, True)


@pytest.mark.parametrize(
    ("mapping", "path"), [(UserDict({"a": {1}}), "a"), ({"a": UserDict({"b": {1}})}, "a.b")], ids=["outer", "inner"]
)
def test_what_a_mapping_finds_when_it_is_asked_is_refused_then(host, probe, trace, mapping, path):
    with host.http_stream([probe(asked(path))], properties=mapping) as stream:
        stream.request_headers(REQUEST, True)
    says = f"SERIALIZATION_FAILURE: property {path}: a set has no form in the ABI"
    assert [says in call for call in trace.hostcalls if call.startswith("proxy_get_property")] == [True]


def test_every_kind_of_value_can_be_given(host, probe, log):
    values = {
        "none": (None, '0 ""'),
        "flag": (True, '0 "%01"'),
        "number": (-1, '0 "%ff%ff%ff%ff%ff%ff%ff%ff"'),
        "large": ((1 << 64) - 1, '0 "%ff%ff%ff%ff%ff%ff%ff%ff"'),
        "float": (0.0, '0 "%00%00%00%00%00%00%00%00"'),
        "text": ("é", '0 "%c3%a9"'),
        "bytes": (b"b", '0 "b"'),
        "buffer": (bytearray(b"c"), '0 "c"'),
        "time": (datetime(1970, 1, 1, tzinfo=timezone.utc), '0 "%00%00%00%00%00%00%00%00"'),
        "span": (timedelta(0), '0 "%00%00%00%00%00%00%00%00"'),
        "list": ([], '0 "%00%00%00%00"'),
        "mapping": ({}, '0 "%00%00%00%00"'),
    }
    given = {name: value for name, (value, _) in values.items()}
    with host.http_stream([probe(asked(*values))], properties=given) as stream:
        stream.request_headers(REQUEST, True)
    assert answers(log) == [text for _, text in values.values()]
