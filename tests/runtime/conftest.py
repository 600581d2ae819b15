"""Tests that may crash run in a child process, and a crash is a failure that says so: the marker ``in_child``."""

from __future__ import annotations

import os
import signal
import traceback
from inspect import signature

import pytest


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    """Run the test in a child process, and then the function `afterwards` of its marker."""
    marker = pyfuncitem.get_closest_marker("in_child")
    if marker is None:
        return None
    given = {name: pyfuncitem.funcargs[name] for name in signature(pyfuncitem.obj).parameters}
    if "ASAN_OPTIONS" in os.environ:  # sanitizers say where it crashed, and hold no locks of theirs over fork()
        pyfuncitem.obj(**given)
        marker.kwargs["afterwards"]()
        return True
    told, tell = os.pipe()
    child = os.fork()
    if not child:
        try:
            pyfuncitem.obj(**given)
            marker.kwargs["afterwards"]()
        except BaseException:
            os.write(tell, traceback.format_exc().encode()[-60_000:])
            os._exit(1)
        os._exit(0)
    os.close(tell)
    with open(told, encoding="utf-8", errors="replace") as lines:
        said = lines.read()
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        pytest.fail(f"the test ended its process by {signal.Signals(os.WTERMSIG(status)).name}", pytrace=False)
    if status:
        pytest.fail(said, pytrace=False)
    return True
