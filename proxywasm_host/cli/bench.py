"""``proxywasm bench``: measures the cost of a request through filters.

The timed loop uses the stream API directly: no listener, no trace, and guests' log lines are dropped. Callbacks,
hostcalls and allocations are counted before that, in one request on another host.
"""

from __future__ import annotations

import platform
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import click

from proxywasm_host.abi.linking import check_exports
from proxywasm_host.abi.marshal import Call
from proxywasm_host.cli.exit_codes import Exit
from proxywasm_host.cli.json_output import dump
from proxywasm_host.cli.options import CommandLine, Silent, command_line_options
from proxywasm_host.cli.render import Line, Screen, hanging, labelled
from proxywasm_host.cli.run import tell
from proxywasm_host.engine.cache import ModuleCache
from proxywasm_host.errors import ProxyWasmError
from proxywasm_host.runtime.failure import Failure
from proxywasm_host.runtime.host import Host
from proxywasm_host.runtime.http import HttpStream
from proxywasm_host.runtime.plugin import Plugin
from proxywasm_host.testing import ExchangeResult, Message, Recorder, exchange

__all__ = ["command"]

ROUNDS = 25
URL = "http://example.com/"


@click.command("bench")
@click.argument("words", metavar="FILTER.wasm… [[METHOD] URL]", nargs=-1, required=True, type=click.Path())
@command_line_options
@click.option("--requests", type=click.IntRange(ROUNDS), default=2000, show_default=True, help="Requests to time.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead.")
@click.option("--color/--no-color", default=None, help="Override the terminal and NO_COLOR.")
def command(words: Sequence[str], requests: int, as_json: bool, color: bool | None, **options: Any) -> int:
    """Measure the cost of one request through filters. Accepts the options of `run`.

    Times are those of whole requests with their responses: the median of 25 rounds after a warm-up. A crossing is a
    call between host and guest in either direction: callbacks, hostcalls, and calls of the guest's allocator.

    \b
    proxywasm bench auth.wasm -H 'authorization: Bearer t' --config t
    proxywasm bench a.wasm b.wasm POST /upload -d @photo.jpg --requests 10000 --json
    """  # noqa: D301 - click wants the character
    command_line = CommandLine.of(words, options, URL)
    try:
        measured = measure(command_line, requests)
    except ProxyWasmError as error:
        return tell(error, color)
    if isinstance(measured, Failure):
        return tell(measured, color)
    if as_json:
        click.echo(dump(measured))
    else:
        Screen(color).print(report(measured, command_line))
    return Exit.OK


def measure(command_line: CommandLine, requests: int) -> dict[str, Any] | Failure:
    """The output of ``bench --json``; or the failure of the guest. Raises: ProxyWasmError."""
    counts, result = count(command_line)
    if result.failure is not None:
        return result.failure
    cold, cached = load_times(command_line)
    with command_line.host(Silent()) as host:
        plugins = command_line.load(host)
        host.drain()
        times = timed(one_request(host, plugins, command_line, result), requests)
        failure = next((plugin.failure for plugin in plugins if plugin.failure), None)
        if failure is not None:
            return failure
        memory = sum(vm.memory_bytes for vm in {plugin._vm for plugin in plugins})
        engine = host.engine
    low, median, high = statistics.quantiles(times, n=4)
    hops = int(getattr(engine, "thread_hops", 0))
    return {
        "request_us": {"median": round(median, 3), "iqr": round(high - low, 3)},
        "hostcalls": counts.hostcalls,
        "callbacks": counts.callbacks,
        "crossings": counts.callbacks + counts.hostcalls + counts.allocations,
        "thread_hops": hops * (counts.callbacks + counts.allocations),
        "load_ms": {"cold": round(cold, 3), "cached": round(cached, 3)},
        "memory_bytes": memory,
        "engine": f"{engine.name} {engine.version}",
        "python": platform.python_version(),
    }


# -- Counting ----------------------------------------------------------------------------------------------------------


@dataclass
class Counts:
    """Numbers of calls between host and guest in one request, from the stream's first callback to its last."""

    callbacks: int = 0
    hostcalls: int = 0
    allocations: int = 0


def count(command_line: CommandLine) -> tuple[Counts, ExchangeResult]:
    """Send one request, and count its calls between host and guest."""
    recorder, counts = Recorder(), Counts()
    with command_line.host(recorder, listener=recorder) as host:
        plugins = command_line.load(host)
        for vm in {plugin._vm for plugin in plugins}:
            allocator = vm.instance.function(check_exports(vm.bytecode.exports, vm.version))
            assert allocator is not None  # noqa: S101 - the VM would not have started
            vm.guest.use_allocator(_counted(allocator, counts))
        result = command_line.send(host, plugins, recorder)
        counts.callbacks = len(result.invocations)
        counts.hostcalls = sum(isinstance(event, Call) for made in result.invocations for event in made.events)
    return counts, result


def _counted(allocator: Callable[[int], int], counts: Counts) -> Callable[[int], int]:
    def allocate(size: int) -> int:
        counts.allocations += 1
        return allocator(size)

    return allocate


# -- Timing ------------------------------------------------------------------------------------------------------------


def load_times(command_line: CommandLine) -> tuple[float, float]:
    """Milliseconds until the chain is ready: without and with a cache of compiled modules."""

    def load(cache: ModuleCache) -> float:
        start = time.perf_counter()
        with command_line.host(Silent(), cache=cache) as host:
            command_line.load(host)
            return (time.perf_counter() - start) * 1e3

    cold = load(ModuleCache(None, slow=command_line.say))
    with tempfile.TemporaryDirectory(prefix="proxywasm-bench-") as directory:
        load(ModuleCache(Path(directory), slow=command_line.say))
        cached = statistics.median(load(ModuleCache(Path(directory))) for _ in range(3))
    return cold, cached


def timed(request: Callable[[], object], requests: int) -> list[float]:
    """The microseconds of a request, in each of the rounds."""
    size = requests // ROUNDS
    clock = time.perf_counter
    for _ in range(max(size, 10)):
        request()
    times = []
    for _ in range(ROUNDS):
        start = clock()
        for _ in range(size):
            request()
        times.append((clock() - start) / size * 1e6)
    return times


def one_request(
    host: Host, plugins: list[Plugin], command_line: CommandLine, before: ExchangeResult
) -> Callable[[], object]:
    """A function that sends the request as directly as possible. `before` is the result of an earlier request."""
    options = command_line.options
    properties, callouts, ticks = dict(options["properties"]), dict(options["callout"]), options["ticks"]
    if command_line.gateway is not None:
        return partial(command_line.send, host, plugins)
    if callouts or ticks:
        return partial(
            exchange, host, plugins, command_line.request, command_line.response, callouts=callouts, ticks=ticks
        )
    upstream = before.upstream_request
    steps = list(_steps("request", command_line.request))
    if upstream is not None and upstream.complete and before.local_response is None and before.reset is None:
        steps += _steps("response", command_line.response)

    def request() -> None:
        stream = host.http_stream(plugins, properties=properties)
        for feed, arguments in steps:
            feed(stream, *arguments)
        stream.close()

    return request


def _steps(which: str, message: Message) -> Iterator[tuple[Callable[..., Any], tuple[Any, ...]]]:
    """The methods of a stream that feed a message, with their arguments."""
    headers, body, end = (getattr(HttpStream, f"{which}_{part}") for part in ("headers", "body", "trailers"))
    chunks, trailers = message.chunks, message.trailers
    yield headers, (message.headers, not (chunks or trailers))
    for number, chunk in enumerate(chunks, 1):
        yield body, (chunk, number == len(chunks) and not trailers)
    if trailers:
        yield end, (trailers,)


# -- As text -----------------------------------------------------------------------------------------------------------


def report(measured: dict[str, Any], command_line: CommandLine) -> Iterator[Line]:
    """The report as text."""
    request, load = measured["request_us"], measured["load_ms"]
    callbacks, hostcalls, crossings = (measured[key] for key in ("callbacks", "hostcalls", "crossings"))
    allocations = crossings - callbacks - hostcalls
    rows = (
        ("request", f"{request['median']:.1f} µs  (interquartile range {request['iqr']:.1f} µs)"),
        ("crossings", f"{crossings}: {callbacks} callbacks, {hostcalls} hostcalls, {allocations} allocations"),
        ("load", f"{load['cold']:.1f} ms with compiling, {load['cached']:.1f} ms from the cache"),
        ("memory", f"{measured['memory_bytes'] / 1024:,.0f} KiB of guest memory"),
        ("on", f"{measured['engine']}, Python {measured['python']}"),
    )
    yield hanging(2, (", ".join(command_line.names), "bold"))
    for label, content in rows:
        yield labelled(2, label, "cyan", content, width=12)
