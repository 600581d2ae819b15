"""``proxywasm pack filter.py``: builds a module from a filter in Python."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable
from pathlib import Path

import click

from proxywasm_host.abi.bytecode import Bytecode
from proxywasm_host.abi.types import AbiVersion
from proxywasm_host.cli.exit_codes import Exit
from proxywasm_host.cli.parameter_types import Output, OutputFile
from proxywasm_host.errors import ModuleError
from proxywasm_host.source import packer

__all__ = ["command"]

AGAIN = 0.3
"""Seconds between two checks of the files, with ``--watch``."""


@click.command("pack")
@click.argument("path", metavar="FILTER.py", type=click.Path(path_type=Path, exists=True, dir_okay=False))
@click.option("-o", "--output", metavar="FILE", type=OutputFile(), help="The file to write.  [default: FILTER.wasm]")
@click.option("--watch", is_flag=True, help="Pack again whenever a script in its folder changes, until Ctrl-C.")
def command(path: Path, output: Output | None, watch: bool) -> int:
    """Build a module from a filter in Python, for this host, Envoy and every other one.

    The module contains all that it needs, and neither a compiler nor the network is used. The exit code is 3 if the
    script cannot be packed.
    """
    output = output or Output(path.with_suffix(".wasm"))
    pack = packer(path)
    if not watch:
        _pack(path, output, pack)
        return Exit.OK
    interrupted = False

    def interrupt(*_: object) -> None:
        nonlocal interrupted
        interrupted = True
        raise KeyboardInterrupt

    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, interrupt)
    seen: object = None
    while not interrupted:  # Python drops the exception if it is raised in a finalizer
        now = {file: file.stat().st_mtime_ns for file in sorted(path.parent.rglob("*.py"))}
        if now != seen:
            seen = now
            try:
                _pack(path, output, pack)
            except ModuleError as error:
                click.echo(f"error: {error}", err=True)
        time.sleep(AGAIN)
    raise click.Abort


def _pack(path: Path, output: Output, pack: Callable[[Path], bytes]) -> None:
    module = pack(path)
    output.write(module)
    higress = Bytecode(module).abi_version is AbiVersion.V0_2_100
    note = f", for Higress and proxywasm-host (ABI {AbiVersion.V0_2_100}); Envoy would refuse it" if higress else ""
    click.echo(f"{output.path}: {len(module) / 1024:.0f} KB{note}")
