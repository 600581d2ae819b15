"""Whole lives of streams, with the C extension and without: the same comes out."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from proxywasm_host.abi.native import NATIVE

LIVES = 120


@pytest.mark.skipif(NATIVE is None, reason="there is no compiler, or PROXYWASM_NATIVE=no")
def test_the_same_comes_of_the_same_events():
    """To see more of them: ``python -m tests.runtime.transcript FIRST LAST``, and ``PROXYWASM_NATIVE=no`` before that."""
    command = [sys.executable, "-m", "tests.runtime.transcript", "0", str(LIVES)]
    runs = [
        subprocess.Popen(command, env={**os.environ, **env}, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for env in ({}, {"PROXYWASM_NATIVE": "no"})
    ]
    (native, errors), (python, others) = (run.communicate() for run in runs)
    assert (errors, others) == ("", "")
    told, expected = native.splitlines(), python.splitlines()
    for at, (line, wanted) in enumerate(zip(told, expected, strict=False)):
        assert line == wanted, "\n".join(["after", *expected[max(at - 20, 0) : at]])
    assert len(told) == len(expected) > 50 * LIVES
