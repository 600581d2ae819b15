"""The plugin for pytest, as filter authors meet it: a folder with a module and its tests goes in, what pytest says comes out."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

# Known before a run of pytest within this process, which forgets what it has imported.
import proxywasm_host.testing.coverage
import proxywasm_host.testing.harness
import proxywasm_host.testing.plugin  # noqa: F401
from tests.conftest import ENGINES
from tests.support import FILTERS

pytest_plugins = "pytester"
CACHE = os.environ.get("XDG_CACHE_HOME", str(Path.home() / ".cache"))
"""Pytester has a home of its own, where nothing would be compiled yet."""

OPTIONS = ("-p", "no:cacheprovider", "-W", "error")
PASSES = """
def test_a_token_is_wanted(proxywasm):
    auth = proxywasm("auth.wasm", "secret")
    assert auth.get("/").status == 401
    assert auth.get("/", {"authorization": "Bearer secret"}).status == 200
"""
PROBE = """
def test_it(proxywasm, proxywasm_engine):
    filter = proxywasm("probe_0_2_1.wasm", "@on_request_headers\\nsay " + {said})
    assert filter.get().status == 200
"""


@pytest.fixture
def folder(pytester, monkeypatch):
    """An empty folder with two filters; ``check(*options, tests=…)`` says what pytest said."""
    monkeypatch.delenv("PYTEST_ADDOPTS", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", CACHE)
    for name in ("rust/auth.wasm", "c/probe_0_2_1.wasm"):
        shutil.copy(FILTERS / name, pytester.path)

    def run(tests, *options, **how):
        monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
        pytester.makepyfile(test_filter=tests)
        return pytester.runpytest_inprocess(*OPTIONS, "-p", "proxywasm_host.testing.plugin", *options)

    pytester.check = run
    return pytester


def test_a_test_passes_and_the_header_names_engines(folder):
    done = folder.check(PASSES)
    done.assert_outcomes(passed=1)
    done.stdout.fnmatch_lines([f"proxywasm: engines *{ENGINES[0]}*"])
    done.stdout.no_fnmatch_line("*Proxy-Wasm*")


@pytest.mark.several_engines
def test_a_test_runs_on_each_engine(folder):
    names = ",".join(ENGINES)
    folder.makepyfile(test_filter=PASSES)
    done = folder.runpytest_subprocess(*OPTIONS, "-v", "--proxywasm-engine", names, timeout=100)
    done.assert_outcomes(passed=len(ENGINES))
    done.stdout.fnmatch_lines([f"*test_a_token_is_wanted?{name}? PASSED*" for name in ENGINES])


@pytest.mark.several_engines
@pytest.mark.parametrize(("mark", "passed"), [("", 1), ("@pytest.mark.proxywasm(compare=False)", 2)])
def test_engines_that_differ_fail(folder, mark, passed):
    first, second = ENGINES[:2]
    folder.makeini(f"[pytest]\nproxywasm_engine = {first},{second}")
    done = folder.check(f"import pytest\n{mark}{PROBE.format(said='proxywasm_engine')}")
    done.assert_outcomes(passed=passed, failed=2 - passed)
    if not mark:
        done.stdout.fnmatch_lines([f"the filter acts differently on {second} than on {first}:", f"-*say {first}*", f"+*say {second}*"])


def test_a_failing_test_shows_logs_and_hostcalls(folder):
    done = folder.check(
        """
def test_fails(proxywasm):
    auth = proxywasm("auth.wasm", "callout:idp")
    auth.http["idp"] = 403
    assert auth.get("/x").status == 200
"""
    )
    done.assert_outcomes(failed=1)
    done.stdout.fnmatch_lines(
        [
            "*- Proxy-Wasm -*",
            "engine: *, profile: envoy",
            "requests:",
            "  GET http://example.com/x: status 403, answered on the way, nothing reached upstream",
            "logs:",
            "  info auth: auth: denied with 403",
            "last hostcalls:",
            "*proxy_http_call(cluster='idp'*",
            "callouts:",
            "  <Callout http idp: GET /check; answered 403>",
        ]
    )


def test_what_differs_is_told_header_by_header(folder):
    done = folder.check(
        """
from proxywasm_host.testing import Request
def test_headers(proxywasm):
    auth = proxywasm("auth.wasm", "secret")
    outcome = auth.get("/", {"authorization": "Bearer secret", "b": "2"})
    assert outcome.upstream.headers == {"authorization": "Bearer secret", "b": "3"}
def test_request(proxywasm):
    auth = proxywasm("auth.wasm", "secret")
    outcome = auth.post("/", {"authorization": "Bearer secret"}, "one\\ntwo")
    assert outcome.upstream == Request("POST", "/", {"authorization": "Bearer secret"}, "one\\nthree")
"""
    )
    done.assert_outcomes(failed=2)
    done.stdout.fnmatch_lines(["*Headers differ (- expected, + came)", "*-b: 3", "*+b: 2", "*Request differ (- expected, + came)", "*-three", "*+two"])


def test_outcomes_are_compared_part_by_part(folder):
    done = folder.check(
        """
def test_it(proxywasm):
    old, new = (proxywasm("auth.wasm", token) for token in ("old", "new"))
    old.upstream = new.upstream = '{"a": 1, "b": [2]}'
    assert old.get("/", {"authorization": "Bearer old"}) == old.get("/", {"authorization": "Bearer old"})
    assert old.get("/", {"authorization": "Bearer old"}) == new.get("/", {"authorization": "Bearer old"})
"""
    )
    done.assert_outcomes(failed=1)
    done.stdout.fnmatch_lines(
        ["E * Outcome differ (- expected, + came)", "E *  upstream got:", "E *-  nothing", "E *+  GET http://example.com/"]
    )


def test_a_body_of_json_differs_line_by_line(folder):
    done = folder.check(
        """
from proxywasm_host.testing import Response
def test_it(proxywasm):
    auth = proxywasm("auth.wasm", "secret")
    auth.upstream = '{"a": 1, "b": [2]}'
    assert auth.get("/", {"authorization": "Bearer secret"}).response == Response(200, body='{"a": 1, "b": [3]}')
"""
    )
    done.stdout.fnmatch_lines(["E * Response differ*", "E * -    3", "E * +    2"])


def test_the_report_tells_what_filters_changed_in_each_phase(folder):
    shutil.copy(FILTERS / "rust" / "headers.wasm", folder.path)
    done = folder.check(
        """
def test_it(proxywasm):
    assert proxywasm("headers.wasm", "hello").get("/x", {"x-remove-me": "1"}).status == 201
"""
    )
    done.stdout.fnmatch_lines(
        [
            "requests:",
            "  GET http://example.com/x: status 200",
            "    request -x-remove-me: 1",
            "    request +x-wasm: hello",
            "    response +server: proxy-wasm",
            "    response +x-wasm: hello",
        ]
    )


def test_a_traceback_has_the_frames_of_the_test_alone(folder):
    """Unless what went wrong is no error that we raise on purpose, or all frames are asked for."""
    tests = """
def test_a_word(proxywasm):
    assert proxywasm("auth.wasm", "secret").get("/").response.headers["x-a"] == "1"
def test_a_function(proxywasm):
    auth = proxywasm("auth.wasm", "callout:idp")
    auth.http["idp"] = lambda call: 1 / 0
    auth.get("/")
def test_a_configuration(proxywasm):
    proxywasm("auth.wasm", "")
"""
    done = folder.check(tests)
    done.assert_outcomes(failed=3)
    done.stdout.no_fnmatch_line("*proxywasm_host/*.py*")
    done.stdout.fnmatch_lines(["E *no header 'x-a'; there is www-authenticate*", "E *ZeroDivisionError*", "E *auth: no token configured*"])
    folder.check(tests, "--full-trace").stdout.fnmatch_lines(["*proxywasm_host/testing/http.py*"])


def test_a_cluster_that_nobody_answers_for_is_named(folder):
    done = folder.check(
        """
def test_none(proxywasm):
    assert proxywasm("auth.wasm", "callout:idp").get("/").status == 200
def test_of_another_kind(proxywasm):
    auth = proxywasm("auth.wasm", "callout:idp")
    auth.grpc["idp"] = b""
    assert auth.get("/").status == 200
"""
    )
    done.stdout.fnmatch_lines(
        [
            "no answer is set for the cluster 'idp': write f.http?'idp'? = …, or f.grpc, or f.redis",
            "no answer is set for the cluster 'idp': write f.http?'idp'? = …",
        ]
    )


def test_what_a_profile_does_not_have_is_named(folder):
    done = folder.check(
        """
import pytest
@pytest.mark.proxywasm(profile="gcp")
def test_it(proxywasm):
    proxywasm("auth.wasm", "secret")
"""
    )
    done.stdout.fnmatch_lines(["the profile 'gcp' does not have: proxy_define_metric"])


@pytest.mark.parametrize(
    ("option", "said"),
    [
        ("--proxywasm-engine=wasmtim", "proxywasm-engine: no engine is called 'wasmtim'. Did you mean 'wasmtime'?*"),
        ("--proxywasm-profile=envoi", "proxywasm-profile: no profile is called 'envoi'. Did you mean 'envoy'?*"),
    ],
)
def test_a_name_that_there_is_not_ends_the_session(folder, option, said):
    done = folder.check(PASSES, option)
    assert done.ret == pytest.ExitCode.USAGE_ERROR
    done.stderr.fnmatch_lines([f"*{said}"])


@pytest.mark.parametrize(
    ("build", "said"),
    [
        ("Cargo.toml", ", nor where it would be built. Build it: cargo build --release --target wasm32-wasip1 (in *); *"),
        ("go.mod", "*Build it: env GOOS=wasip1 GOARCH=wasm go build -buildmode=c-shared -o none.wasm . (in *); *"),
        ("package.json", "*Build it: npm run asbuild (in *); proxywasm_build = … has pytest build it each time"),
        ("README", ". Give its path from one of these; proxywasm_build = … has pytest build it each time"),
    ],
)
def test_a_module_that_is_missing_says_how_it_is_built(folder, build, said):
    (folder.path / build).touch()
    done = folder.check('def test_it(proxywasm):\n    proxywasm("none.wasm")')
    done.assert_outcomes(failed=1)
    done.stdout.fnmatch_lines([f"*no none.wasm beside test_filter.py, nor in *{said}"])


@pytest.mark.parametrize(
    ("file", "output"), [("Cargo.toml", "target/wasm32-wasip1/release"), ("package.json", "build"), ("go.mod", ".")]
)
def test_a_module_is_found_where_its_compiler_puts_it(folder, file, output):
    """Also for tests in a folder of their own."""
    place, tests = folder.path / output / "built.wasm", folder.path / "tests" / "test_built.py"
    for path in (place, tests):
        path.parent.mkdir(parents=True, exist_ok=True)
    (folder.path / "auth.wasm").rename(place)
    (folder.path / file).touch()
    tests.write_text(PASSES.replace("auth.wasm", "built.wasm"))
    folder.check("", tests).assert_outcomes(passed=1)
    tests.write_text(PASSES.replace("auth.wasm", "guilt.wasm"))
    done = folder.check("", tests)
    done.stdout.fnmatch_lines([f"*There is *{(Path(output) / 'built.wasm').as_posix()}*. Build it: *"])


def test_filters_are_built_before_the_session(folder):
    build = f"{sys.executable} -c \"import shutil; shutil.copy('auth.wasm', 'built.wasm')\""
    folder.makeini(f"[pytest]\nproxywasm_build = {build}")
    tests = PASSES.replace("auth.wasm", "built.wasm")
    folder.check(tests, "--proxywasm-no-build").assert_outcomes(failed=1)
    folder.check(tests).assert_outcomes(passed=1)


def test_a_build_that_fails_ends_the_session(folder):
    folder.makeini(f"[pytest]\nproxywasm_build = {sys.executable} -c \"raise SystemExit('no compiler')\"")
    done = folder.check(PASSES)
    assert done.ret == pytest.ExitCode.USAGE_ERROR
    done.stderr.fnmatch_lines(["*proxywasm_build: *ended with 1", "no compiler"])


def test_a_profile_by_option_and_by_marker(folder):
    tests = """
import pytest
def test_option(proxywasm):
    assert proxywasm.profile.name == "spec"
@pytest.mark.proxywasm(profile="gcp", seed=3)
def test_marker(proxywasm):
    assert proxywasm.profile.name == "gcp"
"""
    folder.check(tests, "--strict-markers", "--proxywasm-profile", "spec").assert_outcomes(passed=2)


def test_snapshots_are_written_and_compared(folder):
    tests = """
def test_it(proxywasm, proxywasm_snapshot):
    proxywasm_snapshot(proxywasm("auth.wasm", "secret").get("/x"))
"""
    done = folder.check(tests)
    done.assert_outcomes(failed=1)
    done.stdout.fnmatch_lines(["there is no snapshot test_it.txt yet: pytest --proxywasm-update writes it"])
    folder.check(tests, "--proxywasm-update").assert_outcomes(passed=1)
    text = (folder.path / "__snapshots__" / "test_filter" / "test_it.txt").read_text()
    assert text.startswith("upstream got:\n  nothing\n\nthe client got:\n  status 401\n")
    folder.check(tests).assert_outcomes(passed=1)
    done = folder.check(tests.replace('"secret"', '"callout:none"'))
    done.assert_outcomes(failed=1)
    done.stdout.fnmatch_lines(["-  status 401", "+  status 403"])


def test_coverage_as_table_json_and_page(folder):
    done = folder.check(PASSES, "--proxywasm-coverage", "--proxywasm-coverage-json", "c.json", "--proxywasm-coverage-html", "c.html")
    done.assert_outcomes(passed=1)
    done.stdout.fnmatch_lines(
        [
            "*Coverage of the Proxy-Wasm ABI*",
            "auth: * % of * callbacks, * hostcalls",
            "  proxy_on_http_call_response * never called",
            "  proxy_get_header_map_value *NOT_FOUND 1, OK 1",
        ]
    )
    (auth,) = json.loads((folder.path / "c.json").read_text()).values()
    assert auth["callbacks"]["proxy_on_request_headers"] == 2
    assert auth["hostcalls"]["proxy_send_local_response"] == {"OK": 1}
    assert "proxy_http_call" in auth["missed"]
    assert "<code>proxy_http_call</code><td>never" in (folder.path / "c.html").read_text()


@pytest.mark.parametrize(("least", "code"), [("1", 0), ("99.5", 1)])
def test_too_little_coverage_fails(folder, least, code):
    done = folder.check(PASSES, "--proxywasm-coverage-under", least)
    assert done.ret == code
    if code:
        done.stdout.fnmatch_lines(["auth: * % is under 99.5 %; not reached: *proxy_http_call*"])


@pytest.mark.parametrize(("least", "code"), [("20", 0), ("99.5", 1)])
def test_what_processes_have_covered_is_added_up(folder, least, code):
    """With pytest-xdist, where neither of two processes runs all tests."""
    folder.makepyfile(test_filter=PASSES, test_again=PASSES)
    options = ("-p", "no:benchmark", "-n", "2", "--dist", "loadfile", "--proxywasm-coverage-json", "c.json")
    done = folder.runpytest_subprocess(*OPTIONS, *options, "--proxywasm-coverage-under", least, timeout=100)
    assert done.ret == code
    (auth,) = json.loads((folder.path / "c.json").read_text()).values()
    assert auth["callbacks"]["proxy_on_request_headers"] == 4
    assert auth["hostcalls"]["proxy_get_header_map_value"] == {"NOT_FOUND": 2, "OK": 2}
    if code:
        done.stdout.fnmatch_lines(["auth: * % is under 99.5 %; not reached: *proxy_http_call*"])


def test_nothing_is_imported_where_no_test_asks(tmp_path):
    (tmp_path / "test_it.py").write_text(
        "import sys\ndef test_it():\n    heavy = [name for name in sys.modules if name.startswith(('proxywasm_host.', 'proxywasm_engine'))]\n"
        "    assert set(heavy) == {'proxywasm_host.testing', 'proxywasm_host.testing.plugin', 'proxywasm_host.remedy'}\n"
    )
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", *OPTIONS], cwd=tmp_path, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stdout
    without = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:proxywasm", "-p", "no:cacheprovider", "--fixtures"], cwd=tmp_path, capture_output=True, text=True, timeout=60
    )
    assert "proxywasm" not in without.stdout
