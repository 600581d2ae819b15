"""Header maps. ``[2]`` is a refusal with status 2."""

from __future__ import annotations

import pytest

from proxywasm_host.abi.hostcalls import headers
from proxywasm_host.abi.hostcalls.headers import (
    INLINE,
    joined,
    proxy_add_header_map_value,
    proxy_get_header_map_pairs,
    proxy_get_header_map_size,
    proxy_get_header_map_value,
    proxy_remove_header_map_value,
    proxy_replace_header_map_value,
    proxy_set_header_map_pairs,
)
from proxywasm_host.abi.pairs import MAX_ENTRIES, MAX_SIZE
from proxywasm_host.abi.profile import ENVOY, SPEC
from proxywasm_host.abi.types import AbiVersion, MapType
from tests.abi.fakes import FakeVm, answer

V0_1_0, V0_2_0, V0_2_1, V0_2_100 = AbiVersion
REQUEST, REQUEST_TRAILERS, RESPONSE, RESPONSE_TRAILERS = range(4)
REPLIES = range(4, 8)
"""Maps of a callout's reply, which are the root context's."""


def text(string: str) -> list[tuple[bytes, bytes]]:
    """``a=1 b=2`` as a header map."""
    return [tuple(pair.encode().split(b"=", 1)) for pair in string.split()]


def vm_with(string: str, map: int = REQUEST, **options) -> FakeVm:
    vm = FakeVm(**options)
    (vm.stream if map < 4 else vm.root).maps[map] = text(string)
    return vm


# -- Get ---------------------------------------------------------------------------------------------------------

GET = [
    # map, headers, name, value
    (REQUEST, "a=1 b=2", b"b", b"2"),
    (REQUEST, "a=1 b=2", b"B", b"2"),
    (REQUEST, "a=1 a=2", b"a", b"1"),
    (REQUEST, "a=", b"a", b""),
    (REQUEST, "=v", b"", b"v"),
    (REQUEST, ":path=/", b":path", b"/"),
    (REQUEST, ":authority=h", b"Host", b"h"),
    (REQUEST, "a=1", b"c", [1]),
    (REQUEST, "a=1", b"", [1]),
    (REQUEST, "a=1", b"\xff", [1]),
    (RESPONSE, ":authority=h", b"host", [1]),
    (REQUEST_TRAILERS, "host=h", b"host", b"h"),
    (RESPONSE, ":status=200", b":status", b"200"),
    *((map, "a=1", b"A", b"1") for map in REPLIES),
]


@pytest.mark.parametrize(("map", "content", "name", "value"), GET, ids=repr)
def test_get(map, content, name, value):
    vm = vm_with(content, map)
    assert answer(proxy_get_header_map_value(vm, map, name)) == value
    assert (vm.stream if map < 4 else vm.root).maps[map] == text(content)


MISSING = [
    # version, logged?, map, name → answer; the request's headers are a=1
    (V0_1_0, False, REQUEST, b"b", b""),
    (V0_2_0, False, REQUEST, b"b", [1]),
    (V0_2_1, False, REQUEST, b"b", [1]),
    (V0_2_100, False, REQUEST, b"b", [1]),
    (V0_1_0, False, RESPONSE, b"a", [2]),
    (V0_2_1, False, RESPONSE, b"a", [2]),
    (V0_2_1, False, 6, b"a", [2]),
    (V0_1_0, True, RESPONSE, b"a", b""),
    (V0_2_1, True, RESPONSE, b"a", [1]),
    (V0_2_1, True, REQUEST, b"a", b"1"),
    (V0_2_1, True, REQUEST, b"b", [1]),
    (V0_2_1, True, 6, b"a", [1]),
]


@pytest.mark.parametrize(("version", "logged", "map", "name", "value"), MISSING)
def test_what_is_missing(version, logged, map, name, value):
    vm = vm_with("a=1", version=version)
    vm.stream.read_only = logged
    assert answer(proxy_get_header_map_value(vm, map, name)) == value


def test_reasons():
    vm = vm_with("a=1")
    assert proxy_get_header_map_value(vm, REQUEST, b"B").reason == "no 'b' in the request headers"
    assert proxy_get_header_map_value(vm, 6, b"b").reason == (
        "http call response headers are not available in this callback"
    )
    assert proxy_get_header_map_size(vm, 6).reason == (
        "http call response headers cannot be changed: they are a callout's reply"
    )
    vm.stream.read_only = True
    assert proxy_get_header_map_size(vm, 0).reason == "request headers cannot be changed while the stream is logged"


# -- All pairs ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("map", MapType)
@pytest.mark.parametrize("content", ["", "a=1 a=2 :b=3"])
def test_pairs(map, content):
    assert proxy_get_header_map_pairs(vm_with(content, map), map) == text(content)


@pytest.mark.parametrize("map", MapType)
@pytest.mark.parametrize(("profile", "pairs"), [(ENVOY, []), (SPEC, [2])])
def test_pairs_of_an_absent_map(map, profile, pairs):
    vm = vm_with("a=1", map=REQUEST if map else RESPONSE, profile=profile)
    assert answer(proxy_get_header_map_pairs(vm, map)) == pairs


# -- Size --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("content", "size"), [("", 0), ("a=1", 2), (":path=/x a= a=22", 5 + 2 + 1 + 3)])
def test_size_is_in_bytes(content, size):
    assert proxy_get_header_map_size(vm_with(content), REQUEST) == size


# -- Change ------------------------------------------------------------------------------------------------------

add, replace, remove = proxy_add_header_map_value, proxy_replace_header_map_value, proxy_remove_header_map_value
set_pairs = proxy_set_header_map_pairs

CHANGES = {
    # before, call, after
    "add": ("a=1", (add, b"B", b"X"), "a=1 b=X"),
    "add a second": ("a=1 b=2", (add, b"a", b"3"), "a=1 b=2 a=3"),
    "add an empty name": ("a=1", (add, b"", b"v"), "a=1 =v"),
    "add an empty value": ("", (add, b"a", b""), "a="),
    "add a pseudo header": (":a=1 b=2", (add, b":c", b"3"), ":a=1 :c=3 b=2"),
    "add the first pseudo header": ("b=2", (add, b":c", b"3"), ":c=3 b=2"),
    "add what there is only one of": ("user-agent=one b=2", (add, b"User-Agent", b"two"), "user-agent=one,two b=2"),
    "add the first of these": ("b=2", (add, b"user-agent", b"one"), "b=2 user-agent=one"),
    "add host": (":authority=h b=2", (add, b"host", b"i"), ":authority=h,i b=2"),
    "add a path": (":path=/p?q=1", (add, b":path", b"X"), ":path=/p?q=1,X"),
    "add a cookie": ("cookie=1", (add, b"cookie", b"2"), "cookie=1 cookie=2"),
    "replace": ("a=1 b=2 c=3", (replace, b"B", b"X"), "a=1 c=3 b=X"),
    "replace several": ("a=1 b=2 a=3", (replace, b"a", b"X"), "b=2 a=X"),
    "replace none": ("a=1", (replace, b"b", b"X"), "a=1 b=X"),
    "replace with nothing": ("a=1", (replace, b"a", b""), "a="),
    "replace a pseudo header": (":path=/ :method=GET a=1", (replace, b":path", b"/x"), ":method=GET :path=/x a=1"),
    "replace host": (":authority=h a=1", (replace, b"Host", b"i"), ":authority=i a=1"),
    "remove": ("a=1 b=2 a=3", (remove, b"A"), "b=2"),
    "remove none": ("a=1", (remove, b"b"), "a=1"),
    "remove host": (":authority=h a=1", (remove, b"host"), "a=1"),
    "remove the last": ("a=1", (remove, b"a"), ""),
    "set": ("a=1 b=2", (set_pairs, text("C=3 c=4")), "c=3 c=4"),
    "set none": ("a=1 b=2", (set_pairs, []), ""),
    "set pseudo headers": ("a=1", (set_pairs, text("b=1 :p=2 host=h :q=3")), ":p=2 :authority=h :q=3 b=1"),
    "set what there is only one of": ("a=1", (set_pairs, text(":path=/s a=1 :path=/t a=2")), ":path=/s,/t a=1 a=2"),
}


@pytest.mark.parametrize(("before", "call", "after"), CHANGES.values(), ids=CHANGES)
def test_change(before, call, after):
    vm = vm_with(before)
    map = vm.stream.maps[REQUEST]
    hostcall, *args = call
    assert hostcall(vm, REQUEST, *args) is None
    assert vm.stream.maps[REQUEST] == text(after)
    assert vm.stream.maps[REQUEST] is map, "the runtime keeps the list"


SPEC_CHANGES = {
    "add": ("user-agent=one b=2", (add, b"User-Agent", b"two"), "user-agent=one b=2 user-agent=two"),
    "set": ("", (set_pairs, text(":path=/s :path=/t")), ":path=/s :path=/t"),
}


@pytest.mark.parametrize(("before", "call", "after"), SPEC_CHANGES.values(), ids=SPEC_CHANGES)
def test_change_without_inline_headers(before, call, after):
    vm = vm_with(before, profile=SPEC)
    hostcall, *args = call
    assert hostcall(vm, REQUEST, *args) is None
    assert vm.stream.maps[REQUEST] == text(after)


@pytest.mark.parametrize("value", [b"\0", b"a\r\nb", b" a ", b"\xff"])
def test_values_are_kept_as_they_are(value):
    vm = vm_with("")
    add(vm, REQUEST, b"a", value)
    replace(vm, REQUEST, b"b", value)
    set_pairs(vm, REQUEST, [*vm.stream.maps[REQUEST], (b"c", value)])
    assert vm.stream.maps[REQUEST] == [(b"a", value), (b"b", value), (b"c", value)]


@pytest.mark.parametrize(
    ("map", "name", "joined"),
    [
        (REQUEST, b"user-agent", True),
        (RESPONSE, b"user-agent", False),
        (REQUEST, b"etag", False),
        (RESPONSE, b"etag", True),
        (REQUEST, b"content-type", True),
        (RESPONSE, b"content-type", True),
        (REQUEST_TRAILERS, b"content-type", False),
        (REQUEST_TRAILERS, b"grpc-status", False),
        (RESPONSE_TRAILERS, b"grpc-status", True),
        (RESPONSE_TRAILERS, b"etag", False),
        (REQUEST, b"host", False),
        (RESPONSE, b"set-cookie", False),
    ],
)
def test_what_there_is_only_one_of(map, name, joined):
    assert (name in INLINE[map]) == joined
    vm = vm_with("", map)
    add(vm, map, b"grpc-message", b"-")
    vm.stream.maps[map] = [(name, b"1")]
    add(vm, map, name, b"2")
    added = [b":authority"] if (map, name) == (REQUEST, b"host") else [name]
    expected = [(name, b"1,2")] if joined else sorted([(name, b"1"), (*added, b"2")])
    assert sorted(vm.stream.maps[map]) == expected


def test_every_name_of_these_is_in_lower_case():
    assert all(name == name.lower() for names in INLINE for name in names)
    assert [len(names) for names in INLINE] == [len(INLINE[0]), 0, len(INLINE[2]), 2]


# -- Where nothing can be changed --------------------------------------------------------------------------------

WRITES = [
    (add, b"a", b"1"),
    (replace, b"a", b"1"),
    (remove, b"a"),
    (set_pairs, [(b"a", b"1")]),
    (proxy_get_header_map_size,),
]


@pytest.mark.parametrize("write", WRITES, ids=lambda write: write[0].__name__)
@pytest.mark.parametrize("map", range(4))
def test_an_absent_map_cannot_be_changed(write, map):
    vm = FakeVm()
    hostcall, *args = write
    assert answer(hostcall(vm, map, *args)) == [2]
    assert vm.stream.maps == [None] * 4


@pytest.mark.parametrize("write", WRITES, ids=lambda write: write[0].__name__)
@pytest.mark.parametrize("map", REPLIES)
def test_a_reply_cannot_be_changed(write, map):
    vm = vm_with("b=2", map)
    hostcall, *args = write
    assert answer(hostcall(vm, map, *args)) == [2]
    assert vm.root.maps[map] == text("b=2")


@pytest.mark.parametrize("write", WRITES, ids=lambda write: write[0].__name__)
@pytest.mark.parametrize("map", range(4))
def test_nothing_can_be_changed_while_the_stream_is_logged(write, map):
    vm = vm_with("b=2", map)
    vm.stream.read_only = True
    hostcall, *args = write
    assert answer(hostcall(vm, map, *args)) == [2]
    assert vm.stream.maps[map] == text("b=2")


@pytest.mark.parametrize("map", [REQUEST_TRAILERS, RESPONSE_TRAILERS])
def test_trailers_can_be_made_where_the_context_says_so(map):
    vm = FakeVm()
    vm.stream.new_trailers[map] = trailers = []
    assert add(vm, map, b"A", b"1") is None
    assert trailers == [(b"a", b"1")]


def test_a_root_context_has_no_stream():
    vm = vm_with("a=1")
    vm.context = vm.root
    assert answer(proxy_get_header_map_value(vm, REQUEST, b"a")) == [2]


def test_every_map_has_words():
    assert headers.WORDS[::3] == ("request headers", "response trailers", "http call response headers")


def test_joined():
    headers = [(b":path", b"/"), (b"accept", b"1"), (b"x", b"1"), (b"accept", b"2"), (b"x", b"2"), (b"accept", b"3")]
    assert joined(headers, MapType.REQUEST_HEADERS) == [
        (b":path", b"/"),
        (b"accept", b"1,2,3"),
        (b"x", b"1"),
        (b"x", b"2"),
    ]
    assert joined(headers, MapType.REQUEST_TRAILERS) == headers


# -- Too many, too large -----------------------------------------------------------------------------------------

ADD, REPLACE, REMOVE = proxy_add_header_map_value, proxy_replace_header_map_value, proxy_remove_header_map_value
HALF = b"v" * (MAX_SIZE // 2)
FULL = {
    # headers, calls with their answers
    "entries": (
        [(b"a", b"v")] * (MAX_ENTRIES - 1),
        [(ADD, b"b", b"v", None), (ADD, b"b", b"v", [10]), (REMOVE, b"b", None), (ADD, b"c", b"", None)],
    ),
    "to replace one of many": (
        [(b"a", b"v")] * (MAX_ENTRIES - 1) + [(b"b", b"v")],
        [(REPLACE, b"b", b"w", None), (REPLACE, b"c", b"w", [10])],
    ),
    "bytes": (
        [(b"a", HALF)],
        [(ADD, b"b", HALF, [10]), (ADD, b"b", HALF[2:], None), (ADD, b"c", HALF, [10]), (ADD, b"small", b"v", None)],
    ),
    "to replace a large one": (
        [(b"a", HALF)],
        [(REPLACE, b"a", HALF + HALF[1:], None), (REPLACE, b"b", HALF, [10]), (REPLACE, b"a", b"", None)],
    ),
    "to join": ([(b"accept", HALF)], [(ADD, b"accept", HALF, [10]), (ADD, b"accept", b"v", None)]),
    "more than that from elsewhere": (
        [(b"a", HALF)] * 3,
        [(ADD, b"b", HALF, [10]), (REMOVE, b"a", None), (ADD, b"b", HALF, None)],
    ),
}


@pytest.mark.parametrize(("headers", "calls"), FULL.values(), ids=FULL)
def test_what_a_map_has_no_room_for_changes_nothing(headers, calls):
    vm = vm_with("")
    vm.stream.maps[REQUEST] = list(headers)
    for call, *args, expected in calls:
        before = list(vm.stream.maps[REQUEST])
        assert answer(call(vm, REQUEST, *args)) == expected
        assert (vm.stream.maps[REQUEST] == before) is (expected is not None)


def test_small_ones_do_not_fill_a_map_for_ever():
    vm = vm_with("", profile=SPEC)
    added = [ADD(vm, REQUEST, b"a%d" % number, b"v" * 1000) for number in range(MAX_ENTRIES + 10)]
    size = sum(len(name) + len(value) for name, value in vm.stream.maps[REQUEST])
    assert added.count(None) == len(vm.stream.maps[REQUEST]) == MAX_ENTRIES
    assert size <= MAX_SIZE
    joined = vm_with("accept=v")
    while ADD(joined, REQUEST, b"accept", b"v" * 1000) is None:
        assert len(joined.stream.maps[REQUEST][0][1]) < 2 * MAX_SIZE


def test_reasons_of_a_full_map():
    vm = vm_with("")
    vm.stream.maps[REQUEST] = [(b"a", b"v")] * MAX_ENTRIES
    assert ADD(vm, REQUEST, b"b", b"").reason == "there are 1024 request headers, which is the limit"
    vm.stream.maps[REQUEST] = [(b"a", HALF)]
    assert REPLACE(vm, REQUEST, b"b", HALF).reason == (
        "the request headers have 524289 bytes, 524289 more would be beyond the limit of 1048576"
    )
