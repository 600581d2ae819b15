"""Controls another program that repeats the work.

The program reads lines. To a number of repetitions it answers with the nanoseconds of processor time that they took; to
``show``, with the headers as lines ``request NAME: VALUE`` and ``response NAME: VALUE``, then an empty line. It exits
at the end of its standard input.
"""

from __future__ import annotations

import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from benchmarks.headers import HeaderList


class OtherProgram:
    """The running program. Raises: RuntimeError, if it exits early."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self.process = process

    def _ask(self, line: str) -> bytes:
        assert self.process.stdin
        assert self.process.stdout
        self.process.stdin.write(line.encode() + b"\n")
        self.process.stdin.flush()
        return self._line()

    def _line(self) -> bytes:
        assert self.process.stdout
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError(f"{self.process.args!r} ended with status {self.process.wait()}")
        return line.rstrip(b"\n")

    def seconds(self, times: int) -> float:
        return int(self._ask(str(times))) / 1e9

    def result(self) -> tuple[HeaderList, HeaderList]:
        """The headers for upstream and for the client."""
        maps: dict[bytes, HeaderList] = {b"request": [], b"response": []}
        line = self._ask("show")
        while line:
            which, _, field = line.partition(b" ")
            name, _, value = field.partition(b": ")
            maps[which].append((name, value))
            line = self._line()
        return maps[b"request"], maps[b"response"]


@contextmanager
def running(
    command: Sequence[str | Path], folder: Path | None = None, environment: Mapping[str, str] | None = None
) -> Iterator[OtherProgram]:
    """Start a program in `folder`, and terminate it afterwards."""
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=folder, env=environment)
    try:
        yield OtherProgram(process)
    finally:
        assert process.stdin
        assert process.stdout
        process.stdin.close()
        try:
            process.wait(5)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        process.stdout.close()
