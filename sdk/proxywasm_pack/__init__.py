"""`proxywasm pack`: packs a Python script into a WebAssembly module that any Proxy-Wasm host runs."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import proxywasm

from proxywasm_pack.lower import HELPERS, lower
from proxywasm_pack.snapshot import ScriptError, snapshot
from proxywasm_pack.variants import RUNTIME, runtime

__all__ = ["RUNTIME", "ScriptError", "imports", "pack", "runtime"]

LIBRARY = Path(__file__).parent / "library"
REDIS = "proxywasm.redis"
"""The module whose import makes a packed filter one for Higress."""
# The modules built into the runtime.
BUILT_IN = {
    "_hash", "_json", "_proxywasm", "_re", "array", "ubinascii", "ucollections", "builtins", "cmath", "deflate", "errno", "gc",
    "heapq", "io", "math", "micropython", "random", "struct", "sys", "time", "utime",
}  # fmt: skip
# What to write instead of a module that packed filters do not have.
INSTEAD = {
    "asyncio": "async and await need no import; gather, sleep and create_task are in proxywasm",
    "logging": "use log of proxywasm, whose functions are the same",
    "requests": "await self.call(…)", "httpx": "await self.call(…)", "aiohttp": "await self.call(…)",
    "http": "await self.call(…); request.cookies has cookies", "redis": "from proxywasm.redis import Redis",
    "urllib.request": "await self.call(…)", "os": "a filter has no files and no environment: use self.config",
    "pathlib": "a filter has no files", "threading": "a filter runs in one thread: create_task runs what waits",
    "socket": "await self.call(…)", "grpc": "await self.grpc(…)", "subprocess": "a filter starts no programs",
}  # fmt: skip
# The modules that replace `_proxywasm` in unit tests.
UNDER_CPYTHON = {"proxywasm._fake", "proxywasm._headers"}
MEGABYTE = 1 << 20


def pack(path: str | Path, heap: int = 16 * MEGABYTE, engine: str | None = None) -> bytes:
    """The packed module of the script at `path` and of the modules in its folder that it imports.

    `heap` limits the memory of its objects, in bytes; beyond it a handler gets a MemoryError. The script's top level
    runs now, on one of the host's engines, and the filter starts in the state that it left. The same script always
    gives the same bytes. Raises: ScriptError with file and line, OSError, EngineUnavailable.
    """
    path = Path(path).resolve()
    modules: dict[str, tuple[str, list[int] | None]] = {}
    _import("proxywasm", path.parent, modules, path.name)
    _add(path.stem, path, path.parent, modules)
    maps = {
        file: lines
        for file, (_, lines) in modules.items()
        if lines is not None
    }
    statements = ["import proxywasm._log", f"proxywasm._log.lines.update({_compact(maps)})"]
    names = sorted(file.removesuffix(".py").removesuffix("/__init__").replace("/", ".") for file in modules)
    statements += [f"import {path.stem}", *(f"import {name}" for name in names)]
    files = [(file, source) for file, (source, _) in modules.items()]
    try:
        return snapshot(runtime(redis="proxywasm/redis.py" in modules), files, "\n".join(statements), heap, engine)
    except ScriptError as error:
        raise ScriptError(_with_lines(str(error), maps)) from None


def _compact(maps: dict[str, list[int]]) -> str:
    return "{" + ", ".join(f"{name!r}: __import__('array').array('H', {lines})" for name, lines in maps.items()) + "}"


def _with_lines(text: str, maps: dict[str, list[int]]) -> str:
    out = []
    for line in text.split("\n"):
        if line.startswith('  File "'):
            name, _, rest = line[8:].partition('", line ')
            number, comma, where = rest.partition(",")
            if name in maps and number.isdigit() and int(number) <= len(maps[name]):
                line = f'  File "{name}", line {maps[name][int(number) - 1]}{comma}{where}'
        out.append(line)
    return "\n".join(out)


def _add(name: str, path: Path, folder: Path, modules: dict[str, tuple[str, list[int] | None]]) -> None:
    """Add a module and those that it imports."""
    root = Path(proxywasm.__file__).parent.parent
    base = next(b for b in (LIBRARY, folder.resolve(), root) if path.is_relative_to(b))
    file = path.relative_to(base).as_posix()
    if file in modules:
        return
    source = path.read_text(encoding="utf-8")
    if file == f"{HELPERS}.py":
        modules[file] = source, None
        return
    modules[file] = text, lines = lower(source, file)
    if "NamedTuple" in source:
        _import("collections", folder, modules, file)
    for wanted, line in imports(ast.parse(text)):
        if wanted[:1] == ".":
            raise ScriptError(f"{file}:{lines[line - 1]}: a relative import; write the whole name of the module")
        _import(wanted, folder, modules, f"{file}:{lines[line - 1]}")
    _import(HELPERS, folder, modules, file)


def imports(tree: ast.AST) -> Iterator[tuple[str, int]]:
    """The names of the modules that a source imports, with their lines. Relative names begin with a dot."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            name = "." * node.level + (node.module or "")
            yield name, node.lineno
            if not node.level:
                # The imported name may be a module itself.
                yield from ((f"{name}.{alias.name}", node.lineno) for alias in node.names if f"{name}.{alias.name}" == REDIS)


def _import(name: str, folder: Path, modules: dict[str, tuple[str, list[int] | None]], where: str) -> None:
    if name == "proxywasm" or name.startswith("proxywasm."):
        if name not in UNDER_CPYTHON:
            root = Path(proxywasm.__file__).parent
            rest = name.split(".")[1:]
            if rest:
                _import("proxywasm", folder, modules, where)
            _add(name, root / (f"{rest[0]}.py" if rest else "__init__.py"), folder, modules)
        return
    parts = name.split(".")
    for base in (folder, LIBRARY):
        found = False
        for i in range(1, len(parts) + 1):
            stem = base.joinpath(*parts[:i])
            for candidate in (stem.with_suffix(".py"), stem / "__init__.py"):
                if candidate.exists():
                    _add(name, candidate, folder, modules)
                    found = True
        if found:
            return
    if parts[0] in BUILT_IN:
        return
    have = sorted({p.stem for p in LIBRARY.iterdir() if p.stem[0] != "_"} | {n for n in BUILT_IN if n[0] not in "_u"})
    instead = INSTEAD.get(name) or INSTEAD.get(parts[0])
    if instead:
        raise ScriptError(f"{where}: there is no module {name!r} for packed filters: {instead}")
    raise ScriptError(
        f"{where}: there is no module {name!r} for packed filters, neither next to the script nor in the library, which "
        f"has {', '.join(have)}"
    )
