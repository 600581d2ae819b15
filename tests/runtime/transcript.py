"""Lives of streams by chance, told in lines. ``python -m tests.runtime.transcript FIRST LAST``

Plugins with scripts by chance (for ``tests/filters/c/probe.c``) meet events in likely and unlikely orders, while a listener
now and then feeds events where none may be. Told are effects, errors, log lines, and the state of all there is. What
comes of a number is always the same, with the C extension and without: `test_both_forms` compares.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from dataclasses import fields, replace
from random import Random
from typing import Any

from proxywasm_host import ENVOY, WASMX, Host, Services
from proxywasm_host.abi.held_body import HeldBody
from proxywasm_host.abi.profile import SPEC
from proxywasm_host.services import ManualClock
from tests.support import Lines, code

VERSIONS = ("0_2_1", "0_2_1", "0_1_0", "0_2_0", "0_2_100")
SECTIONS = [
    "context_create",
    "request_headers",
    "request_body",
    "request_trailers",
    "response_headers",
    "response_body",
    "response_trailers",
    "log",
    "done",
    "delete",
    "tick",
]
INSTRUCTIONS = """get_header_map_value MAP NAME|add_header_map_value MAP NAME VALUE|replace_header_map_value MAP NAME VALUE|
    remove_header_map_value MAP NAME|get_header_map_pairs MAP|get_header_map_size MAP|
    set_header_map_pairs MAP :status=200&:path=/z&:method=GET&a=b&a=c|get_buffer_bytes MAP 0 100|get_buffer_status MAP|
    set_buffer_bytes MAP FEW FEW VALUE|send_local_response 403 details body a=b -1|continue_stream FEW|close_stream FEW|
    continue_request|continue_response|inject_encoded_data_to_filter_chain VALUE FEW|clear_route_cache|done|return FEW|
    return FEW|return 0|return 4|set_effective_context $root|set_effective_context $stream|allocator zero|allocator normal|
    get_property request%00path|set_property x VALUE|get_current_time_nanoseconds|set_tick_period_milliseconds FEW|
    http_call upstream :method=GET&:path=/&:authority=x "" "" 1000|trap""".replace("\n", "").split("|")
WORDS = {
    "MAP": ["0", "0", "1", "2", "2", "3", "4", "5", "9"],
    "NAME": ["a", "b", ":path", ":method", ":status", "Host", "accept", "content-type"],
    "VALUE": ["v", "fill:x:80", '""', "200"],
    "FEW": ["0", "1", "2", "3"],
}
REQUEST = [(b":authority", b"example.com"), (b":path", b"/a"), (b":method", b"GET"), (b":scheme", b"http")]
RESPONSE = [(b":status", b"200"), (b"server", b"x")]
NAMES = [b":path", b":status", b":odd", b"a", b"b", b"host", b"accept", b"content-type", b"X-Up", b""]
OF_PATHS = [
    "headers",
    "started",
    "passed",
    "headers_sent",
    "buffer",
    "streaming",
    "trailers",
    "received",
    "ended",
    "complete",
    "aborted",
    "calling",
    "direction",
    "resume_asked",
]


def script(random: Random) -> str:
    """A configuration for the probe."""
    lines = []
    for section in SECTIONS:
        if random.random() < 0.5:
            lines.append(f"@on_{section}{random.choice(['', '', '/2', '/eos'])}")
            for instruction in random.choices(INSTRUCTIONS, k=random.randrange(4)):
                if instruction != "trap" or random.random() < 0.3:
                    words = instruction.strip().split(" ")
                    lines.append(" ".join(random.choice(WORDS.get(word, [word])) for word in words))
    return "\n".join(lines)


def headers(random: Random, usual: list[tuple[bytes, bytes]]) -> Any:
    """Headers, most often of use, in the forms that embedders have them in."""
    given: list[Any] = list(usual)
    for _ in range(random.randrange(4)):
        at = random.randrange(len(given) + 1) if random.random() < 0.2 else len(given)
        given.insert(at, (random.choice(NAMES), random.choice([b"", b"1", b"x" * 70])))
    if random.random() < 0.06:
        given.pop(random.randrange(len(given)))
    if random.random() < 0.05:
        given.append(random.choice([None, (b"a", "b"), (b"a",), 5]))
    return random.choice([list, list, tuple, iter])(given * random.choice([1, 1, 1, 3]))


def told(effect: Any) -> str:
    names = [part.name for part in fields(effect) if part.name not in ("stream", "plugin", "callback")]
    return f"{type(effect).__name__} {[(name, getattr(effect, name)) for name in names]}"


def held(buffer: Any) -> Any:
    """A buffer, as bytes if it is there."""
    return buffer.part(0, len(buffer)) if isinstance(buffer, HeldBody) else buffer


def state(stream, plugins, places: bool) -> Iterator[Any]:
    """All that can be seen. `places`: maps and buffers too, which the extension keeps in another way once they were asked for."""
    yield stream.closed, stream.details, stream.reset_details, stream.failed, str(stream.failure), stream.local
    for path in (stream._request, stream._response):
        yield [held(getattr(path, name)) for name in OF_PATHS], str(path.stopped), hasattr(path, "stream")
        yield [(stream._contexts.index(each), path.was_given_end(at)) for at, each in enumerate(path.filters)]
    for each in stream._contexts:
        yield each.id, each.created, each.deleted, each.pending_done, each.read_only, hasattr(each, "stream")
        yield each.request_action, each.response_action
        if places:
            yield each.maps, [held(buffer) for buffer in each.buffers]
    for plugin in plugins:
        vm = plugin._vm
        yield plugin.closed, sorted(vm.contexts), vm.next_context, vm.stop_iteration, len(vm.deferred), vm.running
        yield [(call[0].name, call[1], getattr(call[2], "status", 0)) for call in vm.calls]


class Life:
    """Some streams through one chain. `lines` tell of them."""

    def __init__(self, number: int) -> None:
        self.random = random = Random(number)
        self.lines: list[Any] = [f"-- {number}"]
        self.places = random.random() < 0.5
        self.log = Lines()
        self.fed = True  # no event is fed while one of the listener's is
        self.now = Random(number)
        profile = random.choice([ENVOY, SPEC, WASMX])
        flags = [part.name for part in fields(profile) if isinstance(getattr(profile, part.name), bool)]
        self.host = Host(
            "wasmtime",
            profile=replace(profile, **{flag: random.random() < 0.5 for flag in flags if random.random() < 0.3}),
            services=Services(clock=ManualClock(), log=self.log, clusters={"upstream"}),
            listener=self if random.random() < 0.5 else None,
        )
        version, shared = random.choice(VERSIONS), random.random() < 0.4
        self.plugins: list[Any] = []
        for place in range(random.randrange(1, 4)):
            options = {
                "name": f"p{place}",
                "vm_id": "" if shared else str(place),
                "configuration": script(random),
                "failure_policy": random.choice(["fail_closed", "fail_open", "fail_reload"]),
                "allow_on_headers_stop_iteration": random.random() < 0.5,
                "isolation": random.choice(["none", "stream", "filter"]) if profile is WASMX else "none",
            }
            self.lines.append(options["configuration"])
            self.does("load", lambda options=options: self.load(f"c/probe_{version}", options))

    def load(self, name: str, options: dict[str, Any]) -> list[Any]:
        self.plugins.append(self.host.load_plugin(code(name), **options))
        return []

    def does(self, what: str, event: Callable[[], list[Any]]) -> None:
        try:
            self.lines.append((what, [told(effect) for effect in event()]))
        except Exception as error:  # which is what is to be compared
            self.lines.append((what, type(error).__name__, str(error)))

    # -- A listener ----------------------------------------------------------------------------------------------

    def callback(self, context, row, args) -> None:
        self.lines.append((row.key, args))
        self.interrupts()

    def returned(self, context, row, result, *, failed) -> None:
        self.lines.append((row.key, result, failed))
        self.interrupts()

    def hostcall(self, context, call) -> None:
        self.interrupts()

    def interrupts(self) -> None:
        if not self.fed and self.now.random() < 0.08:
            self.fed = True
            what, event = self.now.choice(self.events(self.now))
            self.does(f"inside: {what}", event)
            self.fed = False

    # -- Events --------------------------------------------------------------------------------------------------

    def another(self) -> list[Any]:
        with self.host.http_stream(self.plugins) as stream:
            return stream.request_headers(REQUEST, True)

    def events(self, random: Random) -> list[tuple[str, Callable[[], Any]]]:
        """The first five are those of an ordinary request."""
        stream, end = self.stream, random.random() < 0.4
        return [
            ("request headers", lambda: stream.request_headers(headers(random, REQUEST), end)),
            ("request body", lambda: stream.request_body(b"body" * random.randrange(4), end)),
            ("response headers", lambda: stream.response_headers(headers(random, RESPONSE), end)),
            ("response body", lambda: stream.response_body(b"resp" * random.randrange(4), end)),
            ("close", lambda: stream.close(random.choice(["", "gone"]))),
            ("request trailers", lambda: stream.request_trailers([(b"t", b"u")])),
            ("response trailers", lambda: stream.response_trailers([(b"t", b"u")])),
            ("local response", lambda: stream._local_response(403, [(b"q", b"w")], b"b", "why", None) or []),
            ("reset", lambda: stream._reset("why") or []),
            ("another stream", self.another),
            ("tick", self.plugins[0].tick),
            ("drain", self.host.drain),
            ("close plugin", self.plugins[-1].close),
        ]

    def passes(self) -> None:
        random = self.random
        for _ in range(3 if self.plugins else 0):
            try:
                self.stream = self.host.http_stream(self.plugins, buffer_limit=random.choice([8, 1000, 1 << 20]))
            except RuntimeError as error:
                self.lines.append(str(error))
                break
            self.fed = False
            order = list(range(5)) if random.random() < 0.7 else []
            for _ in range(random.randrange(4)):
                order.insert(random.randrange(len(order) + 1), random.randrange(13))
            for which in order:
                self.does(*self.events(random)[which])
                self.lines += [*state(self.stream, self.plugins, self.places), self.log.take()]
            self.fed = True
            self.does("the end", self.stream.close)
        self.does("close host", self.host.close)
        self.lines.append(self.log.take())


if __name__ == "__main__":
    for number in range(int(sys.argv[1]), int(sys.argv[2])):
        life = Life(number)
        life.passes()
        print(*life.lines, sep="\n")
