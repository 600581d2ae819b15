"""``proxywasm inspect``: describes a module from its bytes. No engine is opened, and nothing runs."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from difflib import get_close_matches
from itertools import islice
from typing import Any, Literal

import click

from proxywasm_host.abi.bytecode import Bytecode
from proxywasm_host.abi.custom import CustomHostcall
from proxywasm_host.abi.hostcalls.foreign import OF_HOST, OF_OTHER_HOSTS, PREFIXES_OF_OTHER_HOSTS
from proxywasm_host.abi.linking import STARTS, check_exports, link, look_up
from proxywasm_host.abi.marshal import Guest
from proxywasm_host.abi.module_limits import DEFAULT_MODULE_LIMITS, check_code, check_sections, check_size
from proxywasm_host.abi.table import CALLBACKS, HOSTCALLS, WASI, WASI_MODULES
from proxywasm_host.abi.types import AbiVersion
from proxywasm_host.cli.exit_codes import Exit
from proxywasm_host.cli.json_output import dump
from proxywasm_host.cli.options import HOSTCALLS_OPTION, UNKNOWN_IMPORTS_OPTION, about, check_readable, sentence
from proxywasm_host.cli.render import EMPTY, WHOLE, Line, Screen, hanging, labelled
from proxywasm_host.cli.sdk import origin_of
from proxywasm_host.errors import ModuleError
from proxywasm_host.fetch.fetcher import default_fetcher
from proxywasm_host.services.foreign import BUILT_IN
from proxywasm_host.wasm import CODE, CUSTOM, DATA

__all__ = ["command"]

WORD = re.compile(rb"(?<![A-Za-z0-9_])[a-z][a-z0-9]*(?:_[a-z0-9]+)+(?![A-Za-z0-9_])")
"""A pattern for text that may be the name of a foreign function."""
MAX_WORDS = 10_000
NEAR = 0.85
"""How similar a name must be to one of ours to count as a misspelling."""
KNOWN = {row.name for row in HOSTCALLS}
KNOWN_WASI = {row.name for row in WASI}


@click.command("inspect")
@click.argument("path", metavar="FILTER.wasm", type=click.Path())
@HOSTCALLS_OPTION
@UNKNOWN_IMPORTS_OPTION
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead.")
@click.option("--color/--no-color", default=None, help="Override the terminal and NO_COLOR.")
def command(
    path: str,
    hostcalls: Sequence[list[CustomHostcall]],
    unknown_imports: Literal["error", "stub"],
    as_json: bool,
    color: bool | None,
) -> int:
    """Describe a filter: its ABI, SDK, callbacks and hostcalls, and whether it would load here.

    The exit code is 3 if it would not load. No engine is needed.
    """
    check_readable(path)
    try:
        bytecode = Bytecode(default_fetcher().read(path))
        found = {"file": path, **examine(bytecode, [one for given in hostcalls for one in given], unknown_imports)}
    except ModuleError as error:
        raise about(path, error) from None
    if as_json:
        click.echo(dump(found))
    else:
        Screen(color).print(report(found))
    if found["reason"]:
        Screen(color, err=True).print([hanging(2, ("error: ", "bold red"), f"{path}: {found['reason']}")])
    return Exit.OK if found["loads"] else Exit.MODULE


def examine(
    bytecode: Bytecode, added: Sequence[CustomHostcall] = (), unknown_imports: Literal["error", "stub"] = "error"
) -> dict[str, Any]:
    """The output of ``inspect --json`` without the file's name. `added` are the embedder's hostcalls.

    Raises: ModuleError, if the module is damaged.
    """
    made, reason = origin_of(bytecode), why_not(bytecode, added, unknown_imports)
    own = {one.name for one in added}
    functions = [(module, name) for module, name, kind, _ in bytecode.imports if kind == "function"]
    exports = [name for name, kind, _ in bytecode.exports if kind == "function"]
    callbacks = {row.name for row in CALLBACKS}
    hostcalls = [name for module, name in functions if module == "env"]
    wasi = [name for module, name in functions if module in WASI_MODULES]
    known = [("env", name) for name in KNOWN | own] + [(module, name) for module in WASI_MODULES for name in KNOWN_WASI]
    memory = bytecode.memory
    return {
        "abi": _abi(bytecode),
        "sdk": made.sdk,
        "language": made.language,
        "producers": {
            field: [f"{name} {version}".strip() for name, version in tools]
            for field, tools in bytecode.producers.items()
        },
        "callbacks": [name for name in exports if name in callbacks],
        "hostcalls": _once(hostcalls),
        "custom_hostcalls": _once(name for name in hostcalls if name in own),
        "missing_foreign_functions": _foreign(bytecode, hostcalls),
        "imports": _imports(bytecode, added, unknown_imports),
        "wasi": _once(wasi),
        "unknown_imports": _once(f"{module}.{name}" for module, name in functions if (module, name) not in known),
        "start": [name for name in STARTS if name in exports] + (["start section"] if bytecode.has_start else []),
        "memory": {"initial": memory[0], "maximum": memory[1]} if memory else None,
        "sizes": {
            "file": len(bytecode.data),
            "code": bytecode.size_of(CODE),
            "data": bytecode.size_of(DATA),
            "custom": bytecode.size_of(CUSTOM),
        },
        "loads": reason is None,
        "reason": reason,
    }


def why_not(
    bytecode: Bytecode, added: Sequence[CustomHostcall] = (), unknown_imports: Literal["error", "stub"] = "error"
) -> str | None:
    """The reason why the module would not link here, or ``None``."""
    try:
        check_size(bytecode.data, DEFAULT_MODULE_LIMITS)
        check_sections(bytecode, DEFAULT_MODULE_LIMITS)
        check_code(bytecode, DEFAULT_MODULE_LIMITS)
        version = bytecode.abi_version
        check_exports(bytecode.exports, version)
        guest = Guest(lambda _: None, None)
        for _ in link(bytecode.imports, version, None, guest, None, unknown_imports, added):
            pass
    except ModuleError as error:
        return sentence(error)
    return None


def _abi(bytecode: Bytecode) -> str | None:
    try:
        version: AbiVersion = bytecode.abi_version
    except ModuleError:
        return None
    return str(version)


def _imports(
    bytecode: Bytecode, added: Sequence[CustomHostcall], unknown_imports: Literal["error", "stub"]
) -> list[dict[str, str]]:
    """The status of each import; empty for a module without an ABI version."""
    try:
        found = look_up(bytecode.imports, bytecode.abi_version, None, unknown_imports, added)
    except ModuleError:
        return []
    return [{"import": each.name, "status": each.status, "reason": each.reason} for each in found]


def _foreign(bytecode: Bytecode, hostcalls: list[str]) -> dict[str, str]:
    """Foreign functions that the module seems to name and that do not exist here, with a hint."""
    if "proxy_call_foreign_function" not in hostcalls:
        return {}
    data = bytecode.data
    found = {name: f"of {host}" for name, host in OF_OTHER_HOSTS.items() if name.encode() in data}
    for prefix, host in PREFIXES_OF_OTHER_HOSTS.items():
        for name in re.findall(rb"\b%s[a-z0-9_]{1,40}" % prefix.encode(), data):
            found.setdefault(name.decode(), f"of {host}")
    ours = [*OF_HOST, *BUILT_IN]
    words = {match[0].decode() for match in islice(WORD.finditer(data), MAX_WORDS)}
    for word in words.difference(ours, found):
        for near in get_close_matches(word, ours, n=1, cutoff=NEAR):
            found[word] = f"is {near} meant?"
    return dict(sorted(found.items()))


def _once(names: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(names))


# -- As text -----------------------------------------------------------------------------------------------------------


def report(found: dict[str, Any]) -> Iterator[Line]:
    """The description as text."""
    sizes, memory = found["sizes"], found["memory"]
    yield hanging(WHOLE, (found["file"], "bold"))
    yield from _row("ABI", found["abi"] or "none", "" if found["abi"] else "bold red")
    yield from _row("made with", " · ".join(filter(None, (found["sdk"], found["language"]))) or "unknown")
    if tools := found["producers"].get("processed-by"):
        yield from _row("compiled by", ", ".join(tools))
    parts = ", ".join(f"{part} {bytes_of(sizes[part])}" for part in ("code", "data", "custom"))
    yield from _row("size", f"{bytes_of(sizes['file'])}: {parts}")
    if memory:
        most = "no maximum" if memory["maximum"] is None else f"at most {bytes_of(memory['maximum'])}"
        yield from _row("memory", f"{bytes_of(memory['initial'])} at first, {most}")
    yield from _row("starts by", ", ".join(found["start"]) or "nothing: it has no start function")
    for key in ("callbacks", "hostcalls", "wasi"):
        names = sorted(name.removeprefix("proxy_") for name in found[key])
        yield EMPTY
        yield from _row(key, str(len(names)))
        if names:
            yield hanging(2, "  ", (", ".join(names), "dim"))
    if found["missing_foreign_functions"]:
        yield EMPTY
        yield from _row("foreign", "foreign functions that answer NOT_FOUND here, unless they are registered", "yellow")
        for name in found["missing_foreign_functions"]:
            yield from _row("", f"{name} ({found['missing_foreign_functions'][name]})")
    for status, style in (("stub", "yellow"), ("refused", "bold red")):
        those = [each for each in found["imports"] if each["status"] == status]
        if those:
            yield EMPTY
            yield from _row("stubs" if status == "stub" else status, str(len(those)), style)
        for each in those:
            yield hanging(2, f"  {each['import']}: ", (each["reason"], "dim"))
    if found["custom_hostcalls"]:
        yield EMPTY
        yield from _row("of your own", ", ".join(found["custom_hostcalls"]))
    if found["unknown_imports"]:
        yield EMPTY
        yield from _row("unknown", ", ".join(found["unknown_imports"]), "bold red")
    yield EMPTY
    yield hanging(2, ("would load here", "green") if found["loads"] else ("would not load here", "bold red"))


def _row(label: str, content: str, style: str = "") -> Iterator[Line]:
    yield labelled(2, label, "cyan", content, width=14, content_style=style)


def bytes_of(size: int) -> str:
    """A size in readable form: ``121 kB``, ``64 KiB`` for whole pages."""
    if size >= 1 << 20 and size % (1 << 16) == 0:
        return f"{size / (1 << 20):g} MiB"
    if size and size % (1 << 10) == 0:
        return f"{size >> 10} KiB"
    return f"{size} bytes" if size < 1000 else f"{size / 1000:.0f} kB" if size < 1_000_000 else f"{size / 1e6:.1f} MB"
