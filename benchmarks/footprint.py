"""Measurements that cannot be repeated in one process: memory for each VM, and the first request after a start.

    python -m benchmarks.footprint memory ENGINE FILTER     bytes of memory for each further VM
    python -m benchmarks.footprint further ENGINE FILTER    seconds of processor time until a further VM has started
    python -m benchmarks.footprint start ENGINE FILTER      seconds to each stage, from the interpreter's start

Each prints one JSON value. The report runs each in a separate process.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.headers import HERE

FURTHER = 16  # VMs


def memory(engine: str, filter: str) -> float:
    """Bytes of private memory for each further VM that has started and served a request."""
    from benchmarks.contenders.proxywasm import one_request  # noqa: PLC0415 - only what is measured is imported
    from proxywasm_host import Host  # noqa: PLC0415

    with Host(engine) as host:
        code = sample(filter)

        def load(number: int) -> None:
            plugin = host.load_plugin(code, name=filter, vm_id=str(number))
            assert one_request(host, [plugin])

        load(0)
        before = private()
        for number in range(1, 1 + FURTHER):
            load(number)
        return (private() - before) / FURTHER


def further(engine: str, filter: str) -> float:
    """Seconds of processor time until a further VM has started and been configured: the median of several VMs."""
    from proxywasm_host import Host  # noqa: PLC0415

    with Host(engine) as host:
        code = sample(filter)
        seconds = []
        for number in range(1 + FURTHER):
            began = time.process_time()
            host.load_plugin(code, name=filter, vm_id=str(number))
            seconds.append(time.process_time() - began)
        return sorted(seconds[1:])[FURTHER // 2]


def private() -> int:
    """Bytes of private memory of this process."""
    lines = Path("/proc/self/smaps_rollup").read_text(encoding="ascii").splitlines()
    return sum(int(line.split()[1]) * 1024 for line in lines if line.startswith("Private_"))


def start(engine: str, filter: str) -> dict[str, float]:
    """Seconds from the start of this process to each stage, with compiled code in the engine's cache, if it has one."""
    stages = {"interpreter": since()}
    from proxywasm_host import Host  # noqa: PLC0415

    stages["import"] = since()
    with Host(engine) as host:
        stages["engine"] = since()
        plugin = host.load_plugin(sample(filter))
        stages["plugin"] = since()
        stream = host.http_stream([plugin])
        assert stream.request_headers([(b":path", b"/"), (b":method", b"GET")], True)
        stream.close()
        stages["request"] = since()
    return stages


def since() -> float:
    """Seconds since this process was created."""
    text = Path("/proc/self/stat").read_text(encoding="ascii")
    ticks = int(text.rpartition(")")[2].split()[19])
    return time.clock_gettime(time.CLOCK_BOOTTIME) - ticks / 100


def sample(filter: str) -> bytes:
    """A filter of ``tests/filters`` by name, a Python filter by its path, or ``header_filter`` of the benchmarks."""
    if filter.endswith(".py"):
        from benchmarks.headers import packed  # noqa: PLC0415

        return packed(Path(filter))
    if filter == "header_filter":
        from benchmarks.headers import header_filter  # noqa: PLC0415

        return header_filter()
    return (HERE.parent / "tests" / "filters" / f"{filter}.wasm").read_bytes()


def measured(what: str, engine: str, filter: str) -> Any:
    """Run a measurement in a separate process, and return its result."""
    command = [sys.executable, "-m", "benchmarks.footprint", what, engine, filter]
    return json.loads(subprocess.run(command, cwd=HERE.parent, check=True, stdout=subprocess.PIPE).stdout)


if __name__ == "__main__":
    functions: dict[str, Callable[[str, str], Any]] = {"memory": memory, "further": further, "start": start}
    print(json.dumps(functions[sys.argv[1]](*sys.argv[2:])))
