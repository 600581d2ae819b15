"""One side of `benchmarks.instructions`: repeats workloads of the tree that it is started in, and says what that cost.

    python -c "$(cat rows.py)" ENGINE [LIBRARY FILE]

Each line of standard input is the name of a workload, or a number of repetitions of the one that is open; each is
answered with a line of JSON. With a library (`counter.c`) the answer is a number of instructions, which Valgrind writes
into files that begin like FILE, else seconds of processor time. It imports nothing but what each revision has.
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
    # What workloads print is not an answer.
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
    """What one repetition costs."""
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
    """The instructions that a file of Callgrind's tells of: it has one for each thread, or part, of what ran."""
    return sum(map(int, re.findall(r"^totals: (\d+)$", text, re.MULTILINE)))


if __name__ == "__main__":
    main(*sys.argv[1:])
