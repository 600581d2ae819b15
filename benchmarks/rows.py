"""One side of `benchmarks.instructions`: repeats workloads of the tree in which it starts, and prints the cost.

    python -c "$(cat rows.py)" ENGINE [LIBRARY FILE]

Each line of standard input is the name of a workload to open, or a number of repetitions of the open one. It answers
each with a line of JSON. With a library (`counter.c`) the cost is a number of instructions, which Valgrind writes into
files whose names begin with FILE; otherwise it is seconds of processor time. It imports only what every revision has.
"""

from __future__ import annotations

import ctypes
import gc
import json
import os
import re
import sys
from contextlib import ExitStack
from itertools import repeat
from pathlib import Path

from benchmarks.workloads.table import WORKLOADS

WARM_UP = 20


def main(engine: str, library: str = "", file: str = "") -> None:
    # Keeps the output of workloads apart from the answers.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    known = {workload.name: workload for workload in WORKLOADS}
    counter = ctypes.PyDLL(library) if library else None
    with ExitStack() as stack:
        timed = None
        for line in sys.stdin:
            word = line.rstrip("\n")
            try:
                if word.isdigit() and timed is not None:
                    answer = {"cost": repeated(timed, int(word), counter, file)}
                else:
                    stack.close()
                    timed = None
                    timed = stack.enter_context(known[word].open(engine))
                    answer = {"open": timed.per_call}
            except KeyError:
                answer = {"error": "there is no such row"}
            except Exception as error:  # noqa: BLE001 - whatever a row lacks here: a program, a module
                answer = {"error": f"{type(error).__name__}: {error}"}
            print(json.dumps(answer), file=answers, flush=True)


def repeated(timed, times: int, counter, file: str) -> float:
    """The cost of one repetition."""
    gc.collect()
    gc.freeze()
    if counter is None:
        return timed.seconds(times) / times
    calls = max(1, times // timed.per_call)
    call = timed.call
    for _ in repeat(None, min(WARM_UP, calls)):
        call()
    counter.count_from_here()
    for _ in repeat(None, calls):
        call()
    counter.count_to_here()
    instructions = 0
    for path in Path(file).parent.glob(f"{Path(file).name}.*"):
        instructions += counted(path.read_text(errors="replace"))
        path.unlink()
    return instructions / (calls * timed.per_call)


def counted(text: str) -> int:
    """The number of instructions in a file of Callgrind, which writes one for each thread or part of a run."""
    return sum(map(int, re.findall(r"^totals: (\d+)$", text, re.MULTILINE)))


if __name__ == "__main__":
    main(*sys.argv[1:])
