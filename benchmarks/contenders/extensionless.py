"""This host without its C extension, in a separate interpreter, since importing the host decides about the extension.

    PROXYWASM_NATIVE=no python -m benchmarks.contenders.extensionless ENGINE

It is controlled as `line_protocol` describes.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from benchmarks.contenders.line_protocol import OtherProgram, running
from benchmarks.contenders.proxywasm import proxywasm
from benchmarks.headers import HERE
from benchmarks.timing import InProcess
from proxywasm_host.abi.native import NATIVE


@contextmanager
def extensionless(engine: str) -> Iterator[OtherProgram]:
    command = [sys.executable, "-m", "benchmarks.contenders.extensionless", engine]
    with running(command, HERE.parent, {**os.environ, "PROXYWASM_NATIVE": "no"}) as program:
        yield program


def answer(timed: InProcess, line: str) -> str:
    if line != "show":
        return f"{timed.seconds(int(line)) * 1e9:.0f}"
    request, response = timed.result()
    shown = [("request", field) for field in request] + [("response", field) for field in response]
    return "".join(f"{which} {b': '.join(field).decode()}\n" for which, field in shown)


def main() -> None:
    assert NATIVE is None
    with proxywasm(sys.argv[1]) as timed:
        for line in sys.stdin:
            print(answer(timed, line.strip()), flush=True)


if __name__ == "__main__":
    main()
