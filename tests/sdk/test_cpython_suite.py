"""CPython's own tests in packed filters: as many pass as docs/python-language.md says."""

from __future__ import annotations

import importlib.util
import re
import sys

import pytest

from tests.sdk.cpython_suite.run import TABLE, results

SAID = {name: (int(passes), int(of)) for name, passes, of in re.findall(r"\| test_(\w+) \| (\d+) \| (\d+) \|", TABLE.read_text())}

if sys.version_info[:2] != (3, 11) or importlib.util.find_spec("test.test_patma") is None:
    pytest.skip("CPython 3.11 with its package test is not here", allow_module_level=True)


@pytest.mark.parametrize("name", ["exception_variations", "named_expressions", "patma", "set"])
def test_as_many_pass_as_is_said(name):
    found = results(name)
    assert (sum(how == "passes" for how in found.values()), len(found)) == SAID[name]
