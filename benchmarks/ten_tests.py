"""The time of ten typical tests of a filter in pytest: ``python -m benchmarks.ten_tests [ENGINE]``

The filter is in Rust; half of the tests answer a callout. It prints the best of five runs with an already compiled
module: the whole process of pytest, and the ten tests alone.
"""

from __future__ import annotations

import re
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

FILTER = Path(__file__).parent.parent / "tests" / "filters" / "rust" / "auth.wasm"
TESTS = f"""
import pytest

@pytest.mark.parametrize("known", [True, False] * 5)
def test_it(proxywasm, known):
    auth = proxywasm({str(FILTER)!r}, "callout:idp" if known else "secret")
    auth.http["idp"] = lambda call: 200 if "authorization" in call.request.headers else 403
    assert auth.get("/x", {{"authorization": "Bearer good"}}).status == (200 if known else 401)
    assert auth.logs.info[-1] == ("auth: allowed" if known else "auth: denied with 401")
"""
OPTIONS = ("-p", "no:cacheprovider", "-p", "proxywasm_host.testing.plugin", "--durations=0", "-vv")
DURATION = re.compile(r"^([0-9.]+)s (?:setup|call|teardown) ", re.MULTILINE)


def measure(*options: str) -> tuple[float, float, float]:
    """Seconds of the process, its processor time, and the ten tests with their fixtures."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "test_ten.py").write_text(TESTS, encoding="utf-8")
        before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
        done = subprocess.run(
            [sys.executable, "-m", "pytest", *OPTIONS, *options],
            cwd=folder,
            env={"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "HOME": str(Path.home()), "PATH": ""},
            capture_output=True,
            text=True,
            check=False,
        )
        took, after = time.perf_counter() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
    if "10 passed" not in done.stdout:
        raise SystemExit(done.stdout + done.stderr)
    used = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return took, used, sum(map(float, DURATION.findall(done.stdout)))


def main() -> None:
    engine = sys.argv[1] if len(sys.argv) > 1 else "wasmtime"
    runs = [measure("--proxywasm-engine", engine) for _ in range(6)][1:]
    took, used, tests = map(min, zip(*runs, strict=True))
    print(f"{engine}: {took:.2f} s in total, {used:.2f} s of processor time; the ten tests took {tests:.2f} s")


if __name__ == "__main__":
    main()
