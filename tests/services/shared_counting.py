"""A process that counts in shared data, for the tests and by hand: ``python -m tests.services.shared_counting``."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time

from proxywasm_host.services.shared import open_shared

KEY = b"count"


def increment(data) -> None:
    """As a guest does it: read, and write if nobody has written since."""
    while True:
        value, cas = data.get("vm", KEY) or (b"0", 0)
        if data.set("vm", KEY, b"%d" % (int(value) + 1), cas):
            return


def count(choice: str, times: int) -> None:
    """Count up, and say after each time how often it was."""
    shared = open_shared(choice)
    for done in range(1, times + 1):
        increment(shared.data)
        os.write(1, b"%d\n" % done)
    shared.close()


def started(choice: str, times: int) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "tests.services.shared_counting", choice, str(times)]
    return subprocess.Popen(command, stdout=subprocess.PIPE)


def all_counted(choice: str, processes: int, times: int) -> tuple[int, int, int]:
    """What processes that count at once have counted, one of them killed in the middle.

    Returns what is there, what those that were not killed have counted, and what the one said that was.
    """
    shared = open_shared(choice)
    shared.data.set("vm", KEY, b"0")
    counting = [started(choice, times) for _ in range(processes)]
    victim = counting[0]
    said = b""
    while said.count(b"\n") < times // 2:
        said += os.read(victim.stdout.fileno(), 1 << 16)
    victim.kill()
    for each in counting:
        said += each.communicate()[0] if each is victim else b""
        others = b"" if each is victim else each.communicate()[0]
        assert each is victim or (each.returncode, others.count(b"\n")) == (0, times)
    value, _ = shared.data.get("vm", KEY)
    shared.close()
    return int(value), (processes - 1) * times, said.count(b"\n")


def main() -> None:
    parser = argparse.ArgumentParser(description="8 processes count to 80,000, one is killed in the middle.")
    parser.add_argument("choice", help="as shared: says it, processes:NAME or redis://…")
    parser.add_argument("times", type=int, nargs="?", help="count so often, in this process alone")
    given = parser.parse_args()
    if given.times:
        count(given.choice, given.times)
        return
    began = time.perf_counter()
    value, others, victim = all_counted(given.choice, 8, 10_000)
    seconds = time.perf_counter() - began
    print(f"{value} of {others} and {victim} by the one that was killed: {seconds:.1f} s")
    if not 0 <= value - others - victim <= 1:
        raise SystemExit("something was lost")


if __name__ == "__main__":
    main()
