"""Compiles in a separate process, which has limits of processor time and memory, and may crash alone.

An engine that can serialise compiled code may have an attribute `compile_options`: with these options an engine of the
same class in another process compiles code that this engine can load.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from .protocol import Engine, InvalidModule, Module

if TYPE_CHECKING:
    import subprocess

__all__ = ["compile_apart", "main"]

_PROGRAM = f"from {__name__} import main; main()"
_READY, _REFUSED = b"+", b"-"
_NO_MEMORY = ("memory allocation of", "MemoryError", "annot allocate memory", "out of memory")


def compile_apart(engine: Engine, bytecode: bytes, seconds: float | None, memory: int | None) -> Module:
    """Compile as `Engine.compile`, in another process where that is possible.

    Args:
        seconds: of processor time, over all threads; ``None`` for no limit.
        memory: bytes that may be taken to compile; ``None`` for no limit.

    Raises: InvalidModule.
    """
    answer = _ask(engine, bytecode, seconds, memory)
    if answer is None:
        return engine.compile(bytecode)
    return engine.deserialise(answer)


def _ask(engine: Engine, bytecode: bytes, seconds: float | None, memory: int | None) -> bytes | None:
    """The compiled module, or ``None`` if another process is not possible. Raises: InvalidModule."""
    options = getattr(engine, "compile_options", None)
    if options is None or not os.path.basename(sys.executable or "").startswith("python"):  # noqa: PTH119 - quicker
        return None
    import json  # noqa: PLC0415 - both take longer to import than most modules to compile
    import subprocess  # noqa: PLC0415

    kind = type(engine)
    order = {
        "engine": [kind.__module__, kind.__qualname__],
        "options": options,
        "fingerprint": engine.fingerprint,
        "seconds": seconds,
        "memory": memory,
    }
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    try:
        done = subprocess.run(  # noqa: S603 - the program is our own
            [sys.executable, "-c", _PROGRAM],
            input=json.dumps(order).encode() + b"\n" + bytecode,
            env=environment,
            capture_output=True,
            check=False,
        )
    except OSError:
        return None
    if not done.stdout.startswith(_READY):
        return None
    if done.returncode == 0 and done.stdout[1:2] == _READY:
        return done.stdout[2:]
    if done.stdout[1:2] == _REFUSED:
        raise InvalidModule(done.stdout[2:].decode(errors="replace"))
    raise InvalidModule(_reason(done, seconds, memory))


def _reason(done: subprocess.CompletedProcess[bytes], seconds: float | None, memory: int | None) -> str:
    import signal  # noqa: PLC0415 - only where something is amiss

    if -done.returncode in (signal.SIGXCPU, signal.SIGKILL) and seconds is not None:
        return f"to compile it takes more than {seconds:g} s of processor time"
    complaint = done.stderr.decode(errors="replace").strip()
    if memory is not None and any(words in complaint for words in _NO_MEMORY):
        return f"to compile it takes more than {memory >> 20} MiB of memory"
    complaint = complaint.partition("\n")[0][:200]
    return f"to compile it has ended the process that did, with exit code {done.returncode}: {complaint}"


def main() -> None:
    """The other process: from an order and bytecode on standard input to compiled code on standard output."""
    import json  # noqa: PLC0415 - in the other process alone
    from importlib import import_module  # noqa: PLC0415

    order = json.loads(sys.stdin.buffer.readline())
    module, name = order["engine"]
    kind: Callable[..., Engine] = getattr(import_module(module), name)
    engine = kind(**order["options"])
    if engine.fingerprint != order["fingerprint"]:
        return
    _limit(order)
    output = sys.stdout.buffer
    output.write(_READY)
    output.flush()
    try:
        compiled = engine.compile(sys.stdin.buffer.read()).serialise()
    except InvalidModule as error:
        output.write(_REFUSED + str(error).encode())
    else:
        output.write(_READY + compiled)
    output.flush()
    os._exit(0)  # nothing is left to do, and freeing all takes its time


def _address_space() -> int:
    """Bytes of address space that this process has. Raises: OSError."""
    with open("/proc/self/statm", "rb") as file:
        return int(file.read().split()[0]) * os.sysconf("SC_PAGE_SIZE")


def _limit(order: dict[str, Any]) -> None:
    with suppress(ImportError):
        import resource  # noqa: PLC0415 - where there is one

        if order["seconds"] is not None:
            used = sum(resource.getrusage(resource.RUSAGE_SELF)[:2])
            allowed = max(1, round(used + order["seconds"]))
            with suppress(ValueError, OSError):
                resource.setrlimit(resource.RLIMIT_CPU, (allowed, allowed + 1))
        if order["memory"] is not None:
            with suppress(ValueError, OSError):
                allowed = order["memory"] + _address_space()
                resource.setrlimit(resource.RLIMIT_AS, (allowed, allowed))
        with suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
