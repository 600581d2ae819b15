"""Compiles in a separate process with limits of processor time and memory, whose crash does not affect this one.

An engine that can serialise compiled code may have an attribute `compile_options`. With these options, an engine of the
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
_PATIENCE = 20
"""Seconds in which the other process must use one second of its processor time. A process that waits uses none."""
_NO_MEMORY = ("memory allocation of", "MemoryError", "annot allocate memory", "out of memory")


def compile_apart(engine: Engine, bytecode: bytes, seconds: float | None, memory: int | None) -> Module:
    """Compile as `Engine.compile` does, in another process if possible.

    Args:
        seconds: Limit of processor time in seconds, over all threads; ``None`` for no limit.
        memory: Limit of memory in bytes; ``None`` for no limit.

    Raises: InvalidModule.
    """
    answer = _ask(engine, bytecode, seconds, memory)
    if answer is None:
        return engine.compile(bytecode)
    return engine.deserialise(answer)


def _ask(engine: Engine, bytecode: bytes, seconds: float | None, memory: int | None) -> bytes | None:
    """Compile in another process. Returns serialised code, or ``None`` if that is impossible. Raises: InvalidModule."""
    options = getattr(engine, "compile_options", None)
    if options is None or not os.path.basename(sys.executable or "").startswith("python"):  # noqa: PTH119 - faster
        return None
    import json  # noqa: PLC0415 - both take longer to import than most guests to compile
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
            timeout=None if seconds is None else _PATIENCE * max(1.0, seconds),
        )
    except OSError:
        return None
    except subprocess.TimeoutExpired as error:
        raise InvalidModule(f"compiling did not end within {error.timeout:g} s") from None
    if not done.stdout.startswith(_READY):
        return None
    if done.returncode == 0 and done.stdout[1:2] == _READY:
        return done.stdout[2:]
    if done.stdout[1:2] == _REFUSED:
        raise InvalidModule(done.stdout[2:].decode(errors="replace"))
    raise InvalidModule(_reason(done, seconds, memory))


def _reason(done: subprocess.CompletedProcess[bytes], seconds: float | None, memory: int | None) -> str:
    import signal  # noqa: PLC0415 - only for problems

    if -done.returncode in (signal.SIGXCPU, signal.SIGKILL) and seconds is not None:
        return f"compiling takes more than {seconds:g} s of processor time"
    complaint = done.stderr.decode(errors="replace").strip()
    if memory is not None and any(words in complaint for words in _NO_MEMORY):
        return f"compiling takes more than {memory >> 20} MiB of memory"
    complaint = complaint.partition("\n")[0][:200]
    return f"the compiler's process ended with exit code {done.returncode}: {complaint}"


def main() -> None:
    """Run the other process: read an order and bytecode from standard input, write compiled code to standard output."""
    import json  # noqa: PLC0415 - only in the other process
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
    os._exit(0)  # nothing is left to do, and freeing everything takes time


def _address_space() -> int:
    """Size of this process's address space in bytes. Raises: OSError."""
    with open("/proc/self/statm", "rb") as file:
        return int(file.read().split()[0]) * os.sysconf("SC_PAGE_SIZE")


def _limit(order: dict[str, Any]) -> None:
    with suppress(ImportError):
        import resource  # noqa: PLC0415 - missing on Windows

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
