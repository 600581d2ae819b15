"""The ways to extend a gateway, compared inside one: `proxywasm serve` with Kong's configuration.

    python -m benchmarks.gateway             writes a section of docs/benchmarks-servers.md, in five minutes
    python -m benchmarks.gateway --quick     prints the same, in half a minute, as a check that it works

The work is that of `benchmarks/header_filter.wat`: as a filter on each engine, as a plugin in Lua, and as a plugin in a
plugin server. wrk sends requests over 16 connections, to one gateway after the other, round by round. Processor time is
that of the gateway and of all processes that it has started. The work costs less than the routing before it, so the
report has its difference from the same gateway with no plugin and no filter. The best round counts, because other load
on the machine only makes requests more expensive.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from benchmarks.contenders.plugin_server import NAME, PLUGINS, pdk
from benchmarks.headers import header_filter
from benchmarks.ladder import ENGINES
from benchmarks.processor import processor_seconds
from benchmarks.rust import program
from benchmarks.servers import ANSWER, CONNECTIONS, DOCUMENT, Server, address_of, envoy, inserted, started, wrk
from tests.envoy.rig import _listener

PYTHON = "import sys; from kong_pdk.cli import start_server; start_server()"
WAYS = {
    "none": "no plugin, no filter",
    "lua": "a plugin in Lua",
    **{engine: f"a filter on {engine.title()}" for engine in ENGINES},
    "rust": "a plugin server: stand-in for Kong's in Go",
    "javascript": "a plugin server: Kong's in JavaScript",
    "python": "a plugin server: Kong's in Python",
}
SERVERS = ("rust", "javascript", "python")
SCHEMA = 'return { name = "%s", fields = { { config = { type = "record", fields = {} } } } }\n'


@dataclass(frozen=True)
class Sample:
    """A round of one way: requests per second, and seconds of processor time for a request under load and alone."""

    requests: float
    loaded: float
    alone: float


# -- The gateways ------------------------------------------------------------------------------------------------------


@contextmanager
def gateways(ways: Sequence[str]) -> Iterator[dict[str, Server]]:
    """Start a gateway for each way, with one process and one thread, in front of an Envoy that answers at once."""
    with tempfile.TemporaryDirectory(prefix="proxywasm-") as name, ExitStack() as stack:
        folder = Path(name)
        _, ports = stack.enter_context(envoy(folder / "upstream", {"up": _listener("up", [], ANSWER, None)}, []))
        running = {}
        for way in ways:
            (folder / way).mkdir()
            running[way] = _gateway(stack, folder / way, way, ports["up"])
        yield running


def _gateway(stack: ExitStack, folder: Path, way: str, upstream: int) -> Server:
    service: dict[str, object] = {
        "name": "up",
        "url": f"http://127.0.0.1:{upstream}",
        "routes": [{"name": "all", "paths": ["/"]}],
    }
    environment = {"KONG_PREFIX": str(folder)}
    if way in ENGINES:
        (folder / f"{NAME}.wasm").write_bytes(header_filter())
        service["filter_chains"] = [{"filters": [{"name": NAME}]}]
        environment |= {"KONG_WASM_FILTERS_PATH": str(folder), "PROXYWASM_ENGINE": way}
    elif way != "none":
        service["plugins"] = [{"name": NAME}]
        environment |= lua(folder) if way == "lua" else plugin_server(folder, way)
    config = folder / "kong.yaml"
    config.write_text(json.dumps({"_format_version": "3.0", "services": [service]}), encoding="utf-8")
    options = ["--config", config, "--listen", "127.0.0.1:0", "--access-log", "off", "--log-level", "error"]
    command = [sys.executable, "-m", "proxywasm_host.cli", "serve", *options]
    log = folder / "log"
    process = stack.enter_context(started(command, log, environment))
    return Server(process.pid, f"{address_of(process, log)}/")


def lua(folder: Path) -> Mapping[str, str]:
    """Write the plugin in Lua into a folder, and return the environment that names it."""
    plugin = folder / NAME
    plugin.mkdir()
    (plugin / "handler.lua").write_bytes((PLUGINS.parent / "plugin.lua").read_bytes())
    (plugin / "schema.lua").write_text(SCHEMA % NAME, encoding="ascii")
    return {"KONG_LUA_PACKAGE_PATH": f"{folder}/?.lua"}


def plugin_server(folder: Path, language: str) -> Mapping[str, str]:
    """The environment that configures a plugin server, as Kong's settings."""
    socket = folder / "socket"
    if language == "rust":
        described = folder / "described.json"
        plugin = {
            "Name": NAME,
            "Priority": 1000,
            "Version": "1",
            "Phases": ["access", "response"],
            "Schema": {"name": NAME, "fields": [{"config": {"type": "record", "fields": []}}]},
        }
        described.write_text(json.dumps({"Protocol": "ProtoBuf:1", "SocketPath": str(socket), "Plugins": [plugin]}))
        start, query = f"{program('rust_plugin_server')} {socket}", f"cat {described}"
    else:
        own = f"-d {PLUGINS / language} -p {folder}"
        if language == "python":
            start = f'{sys.executable} -c "{PYTHON}" --gevent --no-lua-style {own} --socket-name socket'
        else:
            start = f"node {pdk()}/bin/kong-js-pluginserver {own} --sock-name socket"
        query = f"{start} --dump-all-plugins"
    return {
        "KONG_PLUGINSERVER_NAMES": language,
        f"KONG_PLUGINSERVER_{language.upper()}_SOCKET": str(socket),
        f"KONG_PLUGINSERVER_{language.upper()}_START_CMD": start,
        f"KONG_PLUGINSERVER_{language.upper()}_QUERY_CMD": query,
    }


# -- Measuring ---------------------------------------------------------------------------------------------------------


def family(process: int) -> list[int]:
    """A process and its descendants."""
    children: dict[int, list[int]] = {}
    for status in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = status.read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
        except (FileNotFoundError, ProcessLookupError):
            continue
        children.setdefault(int(fields[1]), []).append(int(status.parent.name))
    found = [process]
    for one in found:
        found += children.get(one, ())
    return found


def sample(server: Server, seconds: int) -> Sample:
    """Measure a gateway under load for so many seconds, and with requests in sequence for as long.

    Raises: RuntimeError, if an answer was wrong.
    """
    rate, loaded = _used(server, seconds, CONNECTIONS)
    return Sample(rate, loaded, _used(server, seconds, 1)[1])


def _used(server: Server, seconds: int, connections: int) -> tuple[float, float]:
    """Requests per second, and seconds of processor time for one."""
    processes = family(server.process)
    before = sum(map(processor_seconds, processes))
    told = wrk(server, seconds, connections)
    used = sum(map(processor_seconds, processes)) - before
    count, rate = re.search(r"(\d+) requests in", told), re.search(r"Requests/sec:\s+(\S+)", told)
    if count is None or rate is None or count[1] == "0":
        raise RuntimeError(f"nothing was answered:\n{told}")
    return float(rate[1]), used / int(count[1])


Samples = Mapping[str, Sequence[Sample]]


def measure(rounds: int, seconds: int, ways: Sequence[str] = tuple(WAYS)) -> dict[str, list[Sample]]:
    """Measure all ways, round by round. Raises: RuntimeError, if the work was not done."""
    samples: dict[str, list[Sample]] = {way: [] for way in ways}
    with gateways(ways) as running:
        for way, server in running.items():
            if server.filters() != (way != "none"):
                raise RuntimeError(f"{way}: the work was done {server.filters()} times")
            if rounds > 1:
                sample(server, seconds)  # to warm up
        for _ in range(rounds):
            for way, server in running.items():
                try:
                    samples[way].append(sample(server, seconds))
                except RuntimeError as error:  # noqa: PERF203 - the error names the way
                    raise RuntimeError(f"{way}: {error}") from None
    return samples


# -- The report --------------------------------------------------------------------------------------------------------


def least(samples: Samples, way: str, field: str) -> float:
    """Seconds of processor time for a request in the best round."""
    return min(float(getattr(one, field)) for one in samples[way])


def added(samples: Samples, way: str, field: str = "loaded") -> float:
    """Seconds of processor time that a way adds to a request."""
    return least(samples, way, field) - least(samples, "none", field)


def section(samples: Samples, load: float) -> Iterator[str]:
    """The results, as Markdown."""
    yield "## Inside a gateway"
    yield ""
    yield "Written by `python -m benchmarks.gateway`. `proxywasm serve --config kong.yaml` does the same work in each"
    yield "way that Kong's configuration offers, in one process with one thread. Processor time is that of the gateway"
    yield "with its plugin servers, under load and for requests in sequence; the best round counts. The machine had"
    yield f"another load of {load:.0f}, which makes all figures larger."
    yield ""
    columns = ("requests/s", "with none = 1", "under load", "added", "in sequence", "added")
    yield f"| | {' | '.join(columns)} |"
    yield f"|---|{'---:|' * len(columns)}"
    most = {way: max(one.requests for one in own) for way, own in samples.items()}
    for way in samples:
        cells = [WAYS[way], f"{most[way]:,.0f}", f"{most[way] / most['none']:.2f}"]
        for field in ("loaded", "alone"):
            more = "" if way == "none" else f"{added(samples, way, field) * 1e6:,.0f} µs"
            cells += [f"{least(samples, way, field) * 1e6:,.0f} µs", more]
        yield f"| {' | '.join(cells)} |"
    if set(samples) == set(WAYS):
        yield ""
        yield verdict(samples)


def verdict(samples: Samples) -> str:
    """Sentences that compare the results with Kong's claim about the order of the costs."""
    costs = {way: added(samples, way) for way in samples if way != "none"}
    cheap, dear = min(costs[way] for way in ENGINES), max(costs[way] for way in ENGINES)
    server = min(costs[way] for way in SERVERS)
    order = "That is the case here" if cheap > costs["lua"] else "That is not the case here"
    return (
        f"Kong says that Lua costs least, filters more, and plugin servers most. {order}: under load a filter costs"
        f" {cheap / costs['lua']:.2f} to {dear / costs['lua']:.2f}\ntimes as much as the plugin in Lua. A plugin server"
        f" costs at least {server / dear:.0f} times as much as a filter on the slowest engine."
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="print the results of one round of a second each")
    parser.add_argument("--ways", help=f"some of these, separated by commas: {','.join(WAYS)}", default=",".join(WAYS))
    options = parser.parse_args()
    ways = options.ways.split(",")
    load = os.getloadavg()[1]
    samples = measure(1 if options.quick else 15, 1, ways)
    text = list(section(samples, load))
    print("\n".join(text))
    if not options.quick and set(ways) == set(WAYS):
        DOCUMENT.write_text(inserted(DOCUMENT.read_text(encoding="utf-8"), text), encoding="utf-8")


if __name__ == "__main__":
    main()
