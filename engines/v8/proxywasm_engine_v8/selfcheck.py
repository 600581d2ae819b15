"""Checks that V8 works here as on the machine where its `Facts` were found.

The check runs in a child process, because it may crash. It runs once for each library, Python and state of our sources;
the cache directory stores that it succeeded.
"""

from __future__ import annotations

import hashlib
import os
import platform
import subprocess
import sys
import threading
from contextlib import suppress
from pathlib import Path
from secrets import token_hex

from proxywasm_host.engine.cache import default_directory
from proxywasm_host.engine.protocol import FunctionType, HostFunction, Instance, Limits, Trap, TrapKind
from proxywasm_host.extension import checksum

from .in_thread import InThread

__all__ = ["check_once", "main"]

_PATIENCE = 60
_WELL = "all is well"
_PROGRAM = f"from {__package__}.selfcheck import main; main({{route!r}}, native={{native}})"

# (module
#   (import "h" "mix" (func $mix (param i32 i64 f32 f64) (result i64)))
#   (memory (export "memory") 1 2)
#   (func (export "twice") (param i32) (result i32) (i32.mul (local.get 0) (i32.const 2)))
#   (func (export "cross") (param f64 i64 f32 i32) (result f64)
#     (i64.store (i32.const 8) (call $mix (local.get 3) (local.get 1) (local.get 2) (local.get 0)))
#     (f64.convert_i64_u (i64.load (i32.const 8))))
#   (func (export "grow") (result i32) (memory.grow (i32.const 1)))
#   (func $fall (export "trap") unreachable)
#   (func $spin (export "spin") (loop $l (br $l))))
_MODULE = bytes.fromhex(
    "0061736d01000000011d0560047f7e7d7c017e60017f017f60047c7e7d7f017c6000017f6000000209010168036d69780000030605010203"
    "0404050401010102072f06066d656d6f7279020005747769636500010563726f737300020467726f77000304747261700004047370696e00"
    "050a34050700200041026c0b17004108200320012002200010003703004108290300ba0b0600410140000b0300000b070003400c000b0b00"
    "21046e616d6501120300036d6978040466616c6c05047370696e030601050100016c"
)
"""The module above."""


def check_once(route: str, library: Path, version: str, *, native: bool) -> str:
    """Describe the problem of the route to V8 `version` in `library`; empty if there is none."""
    memo = _memo(f"{route} {native}", library, version)
    if memo is not None:
        with suppress(OSError):
            if memo.read_text() == _WELL:
                return ""
    problem = _check(_PROGRAM.format(route=route, native=native))
    if not problem and memo is not None:
        with suppress(OSError):
            memo.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            temporary = memo.with_name(f".tmp-{token_hex(8)}")
            temporary.write_text(_WELL)
            temporary.replace(memo)
    return problem


def main(route: str, *, native: bool) -> None:
    """Run the check in the child process. Prints a fixed text, or raises an exception if the check fails."""
    from .engine import V8Engine  # noqa: PLC0415 - it imports this module

    engine = V8Engine(route=route, native=native, self_check=False)
    if isinstance(engine.route, InThread):
        _check_scopes(engine.route)
    seen: list[object] = []

    def mix(*values: float) -> int:
        seen.append(values)
        twice = instance.function("twice")
        seen.append(twice(21) if twice else None)
        if values[0] == 13:
            raise KeyError("of the host")
        return -5

    function = HostFunction("h", "mix", FunctionType(("i32", "i64", "f32", "f64"), ("i64",)), mix)
    module = engine.compile(_MODULE)
    module.binary.optimised["twice"] = 1  # small, but tests how a large function is optimised
    instance = module.instantiate([function], Limits(memory=65536, deadline=0.25))
    memory = instance.memory
    for name, arguments in (
        ("cross", (-0.5, -(1 << 40), 0.25, -7)),
        ("cross", (1.5, 1, 2.0, 13)),
        ("grow", ()),
        ("trap", ()),
        ("spin", ()),
        ("twice", (1 << 31,)),
    ):
        seen.append(_outcome(instance, name, *arguments))
    mover = threading.Thread(target=lambda: seen.append(_outcome(instance, "twice", 1)))
    mover.start()
    mover.join()
    seen.append(_outcome(instance, "twice", 2))
    expected = [*_EXPECTED, (TrapKind.DEADLINE, "spin" if engine.route.sees_loops else ""), 0, 2, 4]
    if memory is None or seen != expected:
        raise RuntimeError(f"the self-check got {seen}")
    instance.close()
    sys.stdout.write(_WELL)


_EXPECTED: list[object] = [
    ((1 << 32) - 7, (1 << 64) - (1 << 40), 0.25, -0.5),
    42,
    float((1 << 64) - 5),
    (13, 1, 2.0, 1.5),
    42,
    "KeyError",
    0xFFFFFFFF,
    (TrapKind.UNREACHABLE, "fall"),
]


def _outcome(instance: Instance, name: str, *arguments: float) -> object:
    call = instance.function(name)
    try:
        return call(*arguments) if call else None
    except Trap as trap:
        return trap.kind, trap.frames[0].function if trap.frames else ""
    except KeyError:
        return "KeyError"


def _check_scopes(route: InThread) -> None:
    """Check the offset of V8's counter of handles, with more handles than one of V8's blocks has."""
    isolate = route.compiling_isolate()
    library, pointer = isolate.library, isolate.pointer
    with isolate.entered():
        before = library.handles(pointer)
        with isolate.entered():
            for _ in range(5000):
                library.string_new(pointer, b"a string", 0, 8)
            most = library.handles(pointer)
        after = library.handles(pointer)
    if most < before + 5000 or after != before:
        raise RuntimeError(f"handle scopes are not where they should be: {before}, {most}, {after} handles")


def _check(program: str) -> str:
    if not sys.executable:
        return "there is no Python interpreter to check it with"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    try:
        done = subprocess.run(  # noqa: S603 - the program is our own
            [sys.executable, "-c", program],
            env=environment,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=_PATIENCE,
            check=False,
        )
    except (OSError, subprocess.SubprocessError) as error:
        return f"its self-check could not be run: {error}"
    if done.returncode == 0 and done.stdout == _WELL:
        return ""
    complaint = done.stderr.strip().rpartition("\n")[2]
    return f"its self-check failed with exit code {done.returncode}{complaint and ': ' + complaint}"


def _memo(route: str, library: Path, version: str) -> Path | None:
    directory = default_directory()
    if directory is None:
        return None
    status = library.stat()
    facts = (
        checksum(path for path in Path(__file__).parent.rglob("*") if path.suffix in (".py", ".c", ".h", ".so")),
        route,
        version,
        str(library),
        status.st_size,
        status.st_mtime_ns,
        sys.version,
        platform.machine(),
    )
    return directory / f"v8-{hashlib.blake2b(repr(facts).encode(), digest_size=12).hexdigest()}.checked"
