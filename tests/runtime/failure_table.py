"""What streams get when a guest fails, by cause and policy: driven, and written down as the table of docs/failures.md.

    python -m tests.runtime.failure_table
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from proxywasm_host import Host, Limits, ModuleError, Plugin, PluginError, Services
from proxywasm_host.engine.protocol import Engine
from proxywasm_host.runtime.effects import RequestHeaders, ResponseHeaders
from proxywasm_host.services import ManualClock
from tests.support import REQUEST, Lines, code

PAGE = Path(__file__).parents[2] / "docs/failures.md"
BEGIN, END = "<!-- failures: begin -->\n", "<!-- failures: end -->\n"
POLICIES = {
    "`fail_closed`": {"failure_policy": "fail_closed"},
    "`fail_open`": {"failure_policy": "fail_open"},
    "`fail_reload`": {"failure_policy": "fail_reload", "reload_interval": 0},
    "`fail_reload`, 1 s": {"failure_policy": "fail_reload", "reload_interval": 1},
}
HOLD = "get_header_map_value 0 x-hold\nif_status 0\nreturn 1\n"
FAIL = "get_header_map_value 0 x-fail\nif_status 0\n"
ONCE = "@on_configure\nget_shared_data was\nif_status 0\nreturn 0\nset_shared_data was 1 0\n"
CAUSES = {
    "a trap": f"@on_request_headers\n{HOLD}{FAIL}trap",
    "the deadline of a callback": f"@on_request_headers\n{HOLD}{FAIL}loop",
    "memory: the guest asks for more than `limits.memory`, is refused, and continues":
        f"@on_request_headers\n{HOLD}{FAIL}grow 30000",
    "a refused allocation: the guest's allocator returns no memory": f"@on_request_headers\n{HOLD}{FAIL}allocator zero\nget_header_map_value 0 :path",
    "a trap in the guest's allocator": f"@on_request_headers\n{HOLD}{FAIL}allocator trap\nget_header_map_value 0 :path",
    "a trap, and the new VM refuses its configuration": f"{ONCE}@on_request_headers\n{HOLD}{FAIL}trap",
}  # fmt: skip


def got(effects, stream) -> str:
    """What a request gets: its way, an answer, or nothing yet."""
    for effect in effects:
        if getattr(effect, "stream", None) is stream:
            if isinstance(effect, RequestHeaders):
                return "passes"
            if isinstance(effect, ResponseHeaders):
                return dict(effect.headers)[b":status"].decode()
    return "waits"


def request(host: Host, plugin: Plugin, header: bytes = b"x-nothing"):
    stream = host.http_stream([plugin])
    return stream, stream.request_headers([*REQUEST, (header, b"1")], True)


def of_cause(engine: Engine, script: str, options: dict) -> tuple[str, str, str]:
    """What the stream gets that the guest fails on, one that waits meanwhile, and those that come at once and later."""
    clock = ManualClock()
    with Host(engine, services=Services(clock=clock, log=Lines()), limits=Limits(64 << 20, 0.3)) as host:
        plugin = host.load_plugin(code("c/probe_0_2_1"), configuration=script, **options)
        waiting, effects = request(host, plugin, b"x-hold")
        assert got(effects, waiting) == "waits"
        at_hand, effects = request(host, plugin, b"x-fail")
        first, beside = got(effects, at_hand), got(effects, waiting)
        new, effects = request(host, plugin)
        at_once = got(effects, new)
        clock.advance(20)
        new, effects = request(host, plugin)
        later = got(effects, new)
        return first, beside, at_once if at_once == later else f"{at_once}, {later} after the back-off"


def refused(engine: Engine, load: Callable[[Host, dict], object], options: dict) -> str:
    with Host(engine, services=Services(log=Lines())) as host:
        try:
            load(host, options)
        except (ModuleError, PluginError) as error:
            assert host.plugins == []
            return f"`{type(error).__name__}`"
    return "is loaded"


LOADS: dict[str, Callable[[Host, dict], object]] = {
    "load: the module cannot be compiled": lambda host, options: host.load_plugin(b"\0asm\1\0\0\0\xff", **options),
    "load: it traps when it starts": lambda host, options: host.load_plugin(
        code("c/probe_0_2_1"), vm_configuration="@on_vm_start\ntrap", **options
    ),
    "configure: it refuses its configuration": lambda host, options: host.load_plugin(
        code("c/probe_0_2_1"), configuration="@on_configure\nreturn 0", **options
    ),
}


def table(engine: Engine) -> str:
    """The table in Markdown."""
    head = ("cause", "the stream that it fails on", "streams that wait in the same VM", *(f"next, {name}" for name in POLICIES))
    rows = [head, ("---",) * len(head)]
    for name, load in LOADS.items():
        told = {refused(engine, load, options) for options in POLICIES.values()}
        rows.append((name, *(" / ".join(sorted(told)) + " from `load_plugin`", "", *[""] * len(POLICIES))))
    for name, script in CAUSES.items():
        outcomes = [of_cause(engine, script, options) for options in POLICIES.values()]
        firsts, besides = ({outcome[place] for outcome in outcomes} for place in (0, 1))
        rows.append((name, " / ".join(sorted(firsts)), " / ".join(sorted(besides)), *(outcome[2] for outcome in outcomes)))
    return "".join(f"| {' | '.join(row)} |\n" for row in rows)


def written() -> str:
    """The table that the page has."""
    return PAGE.read_text().partition(BEGIN)[2].partition(END)[0]


if __name__ == "__main__":
    from proxywasm_host import open_engine

    before, _, rest = PAGE.read_text().partition(BEGIN)
    PAGE.write_text(before + BEGIN + table(open_engine("wasmtime")) + END + rest.partition(END)[2])
