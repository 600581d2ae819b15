"""HTTP/2 towards clients: every case of h2spec, past filters and through one."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from tests.serve.conftest import HEADERS
from tests.serve.in_process import beside

CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
H2SPEC = CACHE / "proxywasm-host/bin/h2spec"
"""`make` installs it."""
ANSWERED = "3.5. HTTP/2 Connection Preface: Sends invalid connection preface"
"""Where HTTP/1.1 is spoken as well, this is a request line that is none, and answered 400."""


@pytest.mark.parametrize("filters", [[], [HEADERS]])
def test_every_case(origin, tmp_path, filters):
    report = tmp_path / "report.xml"
    with beside({"upstream": origin.url, "filters": filters}) as served:
        command = [H2SPEC, "--host", "127.0.0.1", "--port", str(served.port), "--timeout", "5", "--junit-report", report]
        subprocess.run(command, capture_output=True, timeout=120)
    failed, count = set(), 0
    for suite in ET.parse(report).getroot():
        for case in suite:
            count += 1
            if case.find("failure") is not None or case.find("error") is not None:
                failed.add(f"{suite.get('name')}: {case.get('classname')}")
    assert (count, failed) == (145, {ANSWERED})
