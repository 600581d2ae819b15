"""The plugin for pytest, with the fixture `proxywasm`, a `Harness` for each test.

    def test_without_a_token(proxywasm):
        auth = proxywasm("auth.wasm", {"token": "t"})
        assert auth.get("/x").status == 401

pytest loads it wherever this distribution is installed, so it imports modules only when a test needs them.
"""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator
from difflib import unified_diff
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

    from proxywasm_host.testing.coverage import Coverage
    from proxywasm_host.testing.harness import Harness
    from proxywasm_host.testing.outcome import Outcome

HARNESS: pytest.StashKey[Harness] = pytest.StashKey()
COVERAGE: pytest.StashKey[Coverage] = pytest.StashKey()
COVERED = "proxywasm_coverage"
"""Name under which a process of pytest-xdist returns its coverage."""
SEEN: pytest.StashKey[dict[str, tuple[str, list[str]]]] = pytest.StashKey()
"""The first engine of each test, and the actions of filters on it."""
BUILDS = (
    ("Cargo.toml", "cargo build --release --target wasm32-wasip1", "target/*/release"),
    ("go.mod", "env GOOS=wasip1 GOARCH=wasm go build -buildmode=c-shared -o {name} .", "."),
    ("package.json", "npm run asbuild", "build"),
    ("Makefile", "make", "."),
)
"""Build files next to or above a module, with the command that builds it and the folder of the result."""
TEST_ENGINES = "proxywasm_host.test_engines"
MARKER = (
    "proxywasm(engine=None, compare=True, **options): arguments of the fixture `proxywasm`: an engine, several or "
    "'all', options of proxywasm_host.testing.Harness (profile, seed, limits, …); compare=False: engines may differ."
)


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the options ``--proxywasm-…``."""
    group = parser.getgroup("proxywasm", "Proxy-Wasm filters")
    group.addoption(
        "--proxywasm-engine", metavar="NAME", help="engines for the fixture proxywasm: names with commas, or 'all'"
    )
    group.addoption(
        "--proxywasm-profile",
        metavar="NAME",
        help="the host profile of filters: envoy, spec, higress, gcp, wasmx, gcore",
    )
    group.addoption("--proxywasm-update", action="store_true", help="rewrite the snapshots of proxywasm_snapshot")
    group.addoption("--proxywasm-no-build", action="store_true", help="do not run the commands of proxywasm_build")
    said = "report which callbacks, hostcalls and functions of filters the tests reached"
    group.addoption("--proxywasm-coverage", action="store_true", help=said)
    group.addoption("--proxywasm-coverage-json", metavar="FILE", help="write the coverage as JSON")
    group.addoption("--proxywasm-coverage-html", metavar="FILE", help="write the coverage as an HTML page")
    group.addoption(
        "--proxywasm-coverage-under", metavar="PERCENT", type=float, help="fail if a filter has less coverage"
    )
    parser.addini("proxywasm_engine", "As --proxywasm-engine.", default="")
    parser.addini("proxywasm_profile", "As --proxywasm-profile.", default="")
    parser.addini(
        "proxywasm_build", "Commands that build the filters, one a line, before the session.", type="linelist"
    )


def pytest_configure(config: pytest.Config) -> None:
    """Register the marker ``proxywasm``, and check the options."""
    config.addinivalue_line("markers", MARKER)
    config.stash[SEEN] = {}
    _check(config)


def _check(config: pytest.Config) -> None:
    """Check the options. Raises: pytest.UsageError, for an unknown engine or profile."""
    for name in _said(config, "engine").split(","):
        if name and name != "all" and name not in _entry_points(TEST_ENGINES):
            from proxywasm_host.engine.registry import check_name
            from proxywasm_host.errors import UnknownEngine

            try:
                check_name(name)
            except UnknownEngine as error:
                raise pytest.UsageError(f"proxywasm-engine: {error}") from None
    if profile := _said(config, "profile"):
        from proxywasm_host.testing.profiles import host_profile

        try:
            host_profile(profile)
        except LookupError as error:
            raise pytest.UsageError(f"proxywasm-profile: {error.args[0]}") from None


def _said(config: pytest.Config, name: str) -> str:
    """An option of the command line, or else of the configuration."""
    return config.getoption(f"--proxywasm-{name}") or config.getini(f"proxywasm_{name}") or ""


def pytest_report_header(config: pytest.Config) -> str:
    """Name the installed engines."""
    installed = ", ".join(sorted(_entry_points("proxywasm_host.engines"))) or "none installed"
    told = [f"{name} {said}" for name in ("engine", "profile") if (said := _said(config, name))]
    return f"proxywasm: engines {installed}" + "".join(f"; {each}" for each in told)


# -- Building ----------------------------------------------------------------------------------------------------------


def pytest_sessionstart(session: pytest.Session) -> None:
    """Build the filters, once per session."""
    config = session.config
    if config.getoption("--proxywasm-no-build") or config.option.collectonly or hasattr(config, "workerinput"):
        return
    for command in config.getini("proxywasm_build"):
        done = subprocess.run(shlex.split(command), cwd=config.rootpath, capture_output=True, text=True, check=False)
        if done.returncode:
            output = (done.stdout + done.stderr).rstrip()
            raise pytest.UsageError(f"proxywasm_build: {command} ended with {done.returncode}\n{output}")


def _find(path: Any, test: Path, root: Path) -> Any:
    """Find the file of a module next to the test, in pytest's root or the current directory, or where its compiler puts
    it.

    Raises: FileNotFoundError, whose message says how to build it.
    """
    from proxywasm_host.fetch.reference import is_remote

    if not isinstance(path, (str, os.PathLike)) or is_remote(path):
        return path
    name = Path(path)
    places = list(dict.fromkeys(place / name for place in (test.parent, root, Path.cwd())))
    found = next((place for place in places if place.is_file()), None)
    if found is not None:
        return found
    builds = {
        folder: (command, output)
        for place in places
        for folder in place.parents
        if folder.is_relative_to(root)
        for file, command, output in BUILDS
        if (folder / file).is_file()
    }
    built = [file for folder, (_, output) in builds.items() for file in folder.glob(f"{output}/*.wasm")]
    of_name = [file for file in built if file.name == name.name]
    if of_name:
        return max(of_name, key=lambda file: file.stat().st_mtime)
    how = [f"Build it: {command.format(name=name.name)} (in {folder})" for folder, (command, _) in builds.items()][:1]
    there = [str(file.relative_to(root)) for file in built if file.is_relative_to(root)]
    raise FileNotFoundError(
        f"no {name} beside {test.name}, nor in {root}{', nor where it would be built' if how else ''}. "
        + (f"There is {', '.join(there)}. " if there else "")
        + "; ".join(
            [*(how or ["Give its path from one of these"]), "proxywasm_build = … has pytest build it each time"]
        )
    )


# -- Engines -----------------------------------------------------------------------------------------------------------


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run a test once for each of its engines."""
    if "proxywasm_engine" in metafunc.fixturenames:
        marker = metafunc.definition.get_closest_marker("proxywasm")
        said = (marker.kwargs.get("engine") if marker else None) or _said(metafunc.config, "engine")
        names = [each for each in said.split(",") if each] if isinstance(said, str) else list(said)
        if names == ["all"]:
            from proxywasm_host.engine.registry import list_engines

            names = [engine.name for engine in list_engines() if engine.usable]
        if names:
            metafunc.parametrize("proxywasm_engine", names, indirect=True)


@pytest.fixture
def proxywasm_engine(request: pytest.FixtureRequest) -> str | None:
    """The name of the test's engine; ``None`` for the preferred installed engine."""
    name: str | None = getattr(request, "param", None)
    return name


# -- Fixtures ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def proxywasm(request: pytest.FixtureRequest, proxywasm_engine: str | None) -> Iterator[Harness]:
    """A `Harness`: ``proxywasm("auth.wasm", configuration)`` is a filter under test.

    It looks for files next to the test, in pytest's root and the current directory, and where compilers put them.
    """
    from proxywasm_host.testing.harness import Harness

    marker = request.node.get_closest_marker("proxywasm")
    options = {**(marker.kwargs if marker else {})}
    for name in ("engine", "compare"):
        options.pop(name, None)
    options.setdefault("profile", _said(request.config, "profile") or "envoy")
    other = _test_engine(proxywasm_engine)
    with Harness(other or proxywasm_engine, **options) as harness:

        def find(path: Any) -> Any:
            found = _find(path, request.path, request.config.rootpath)
            if other is None or not isinstance(found, Path):
                return found
            module = request.getfixturevalue("tmp_path_factory").mktemp("filter") / f"{found.stem}.wasm"
            module.write_bytes(other.module_of(found))
            return module

        harness.find = find
        harness.count_functions = _covers(request.config)
        request.node.stash[HARNESS] = harness
        yield harness
        _cover(request.config, harness)


def _test_engine(name: str | None) -> Any:
    """The stand-in engine of this name from the entry points in the group `TEST_ENGINES`, or ``None``.

    It is an `Engine` with a method ``module_of(path)``, which returns the module that represents a filter's file.
    """
    entry = _entry_points(TEST_ENGINES).get(name or "")
    return entry.load()() if entry else None


@lru_cache(None)
def _entry_points(group: str) -> dict[str, EntryPoint]:
    """Entry points by name, cached because Python's search in all distributions takes longer than a test."""
    from importlib.metadata import entry_points

    return {entry.name: entry for entry in entry_points(group=group)}


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Iterator[None]:
    """Run a test, and fail it if its filters acted differently on another engine."""
    yield
    harness = item.stash.get(HARNESS, None)
    params = getattr(item, "callspec", _NoParams).params
    marker = item.get_closest_marker("proxywasm")
    if harness is None or "proxywasm_engine" not in params or (marker and not marker.kwargs.get("compare", True)):
        return
    engine, did = params["proxywasm_engine"], harness.transcript()
    others = {name: value for name, value in params.items() if name != "proxywasm_engine"}
    key = f"{item.nodeid.partition('[')[0]} {others!r}"
    first, before = item.config.stash[SEEN].setdefault(key, (engine, did))
    if before != did:
        diff = "\n".join(unified_diff(before, did, first, engine, lineterm="", n=2))
        pytest.fail(f"the filter acts differently on {engine} than on {first}:\n{diff}", pytrace=False)


@pytest.fixture
def proxywasm_snapshot(request: pytest.FixtureRequest) -> Callable[..., None]:
    """Compare an `Outcome` (or lines) with its snapshot: ``proxywasm_snapshot(outcome, name="")``.

    The file is ``__snapshots__/MODULE/TEST.txt`` next to the test. ``pytest --proxywasm-update`` writes it.
    """
    node = request.node
    parts = [
        str(value) for name, value in getattr(node, "callspec", _NoParams).params.items() if name != "proxywasm_engine"
    ]

    def compare(outcome: Outcome | list[str], name: str = "") -> None:
        lines = outcome if isinstance(outcome, list) else outcome.lines()
        file = "-".join(
            "".join(c if c.isalnum() or c in "_." else "_" for c in part)
            for part in [node.originalname, *parts, name]
            if part
        )
        path = request.path.parent / "__snapshots__" / request.path.stem / f"{file}.txt"
        if request.config.getoption("--proxywasm-update"):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("\n".join([*lines, ""]), encoding="utf-8")
            return
        if not path.is_file():
            pytest.fail(f"there is no snapshot {path.name} yet: pytest --proxywasm-update writes it", pytrace=False)
        before = path.read_text(encoding="utf-8").splitlines()
        if before != lines:
            diff = "\n".join(unified_diff(before, lines, path.name, "now", lineterm=""))
            pytest.fail(
                f"this differs from the snapshot (pytest --proxywasm-update rewrites it):\n{diff}", pytrace=False
            )

    return compare


class _NoParams:
    params: dict[str, Any] = {}  # noqa: RUF012 - never changed


# -- Reports -----------------------------------------------------------------------------------------------------------


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Iterator[None]:
    """Add the filters' logs and actions to the report of a failed test, and hide our own frames in its traceback."""
    for entry in call.excinfo.traceback if call.excinfo else ():
        if _is_ours(entry):
            entry.frame.f_globals["__tracebackhide__"] = _is_hidden
    report: pytest.TestReport = yield  # type: ignore[assignment]
    harness = item.stash.get(HARNESS, None)
    if report.failed and harness is not None:
        report.sections.append(("Proxy-Wasm", harness.report()))
    return report  # type: ignore[return-value]


OURS = ("proxywasm_host.", "proxywasm_engine_")
SPOKEN = (AssertionError, LookupError, OSError, TypeError, ValueError)
"""Errors other than our own whose message says what was wrong."""


def _is_ours(entry: Any) -> bool:
    return str(entry.frame.f_globals.get("__name__", "")).startswith(OURS)


def _is_hidden(error: pytest.ExceptionInfo[BaseException]) -> bool:
    """Whether to hide our frames, because the error comes from a function or an argument of the test."""
    said = isinstance(error.value, SPOKEN) or type(error.value).__module__.startswith(OURS)
    return said or not _is_ours(error.traceback[-1])


def pytest_assertrepr_compare(op: str, left: object, right: object) -> list[str] | None:
    """Explain how two messages, headers or outcomes differ, with one header per line."""
    http, outcome = (sys.modules.get(f"proxywasm_host.testing.{name}") for name in ("http", "outcome"))
    if http is None or outcome is None or op != "==":
        return None
    known = http.Headers, http.Request, http.Response, outcome.Outcome
    if not isinstance(left, known) and not isinstance(right, known):
        return None
    if isinstance(left, http.Headers) or isinstance(right, http.Headers):
        try:
            left, right = http.Headers(left), http.Headers(right)
        except TypeError:
            return None
    elif type(left) is not type(right):
        return None
    came, expected = ([*_readable(each)] for each in (left, right))
    whole = isinstance(left, outcome.Outcome)
    diff = [line for line in unified_diff(expected, came, lineterm="", n=1000 if whole else 1) if line[:2] != "@@"][2:]
    return [f"{type(left).__name__} differ (- expected, + came)", *(_by_title(diff) if whole else diff)]


def _by_title(diff: list[str]) -> Iterator[str]:
    """The changes of a diff, under the titles of their parts: ``upstream got:``, ``the client got:``, …"""
    title = ""
    for line in diff:
        if line[0] != " ":
            yield from [title, line] if title else [line]
            title = ""
        elif line.endswith(":") and line[1] != " ":
            title = line


def _readable(value: Any) -> Iterator[str]:
    """The lines of a message, of headers or of an outcome, with JSON bodies over several lines."""
    for line in value.lines():
        text = line.lstrip()
        try:
            told = json.dumps(json.loads(text), indent=2, ensure_ascii=False) if text[:1] in tuple("[{") else text
        except ValueError:
            told = text
        yield from (line[: len(line) - len(text)] + part for part in told.split("\n"))


# -- Coverage ----------------------------------------------------------------------------------------------------------


def _covers(config: pytest.Config) -> bool:
    words = ("coverage", "coverage-json", "coverage-html", "coverage-under")
    return any(config.getoption(f"--proxywasm-{word}") not in (None, False) for word in words)


def _cover(config: pytest.Config, harness: Harness) -> None:
    if _covers(config):
        from proxywasm_host.testing.coverage import Coverage

        plugins = [plugin for filter in harness.filters for plugin in filter.plugins]
        config.stash.setdefault(COVERAGE, Coverage()).add(plugins, harness.recorder, harness.function_counters)


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Write the coverage, and fail if it is too low."""
    config = session.config
    coverage = config.stash.get(COVERAGE, None)
    if coverage is None:
        return
    if hasattr(config, "workeroutput"):  # a process of pytest-xdist, for `pytest_testnodedown`
        config.workeroutput[COVERED] = coverage.as_json()
        return
    for word, told in (("json", coverage.as_json), ("html", coverage.as_html)):
        file = config.getoption(f"--proxywasm-coverage-{word}")
        if file:
            Path(file).write_text(told(), encoding="utf-8")
    least = config.getoption("--proxywasm-coverage-under")
    if least is not None and coverage.under(least) and session.exitstatus == pytest.ExitCode.OK:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """Add the coverage of a process of pytest-xdist that has ended."""
    told = getattr(node, "workeroutput", {}).get(COVERED)
    if told is not None:
        from proxywasm_host.testing.coverage import Coverage

        node.config.stash.setdefault(COVERAGE, Coverage()).merge(told)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Print the coverage, if requested."""
    coverage = config.stash.get(COVERAGE, None)
    if coverage is None:
        return
    if config.getoption("--proxywasm-coverage"):
        terminalreporter.section("Coverage of the Proxy-Wasm ABI")
        for line in coverage.table():
            terminalreporter.write_line(line)
    least = config.getoption("--proxywasm-coverage-under")
    if least is not None:
        for sentence in coverage.under(least):
            terminalreporter.write_line(sentence, red=True)
