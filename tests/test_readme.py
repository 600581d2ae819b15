"""What README and the pages in docs print, works as it is printed: commands, programs and links."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import anyio
import pytest
import yaml

from proxywasm_host.cli.app import COMMANDS
from proxywasm_host.cli.serve import command as serve
from proxywasm_host.cli.serve import overrides
from proxywasm_host.serve.source import Source
from tests.integrations.asgi import get

ROOT = Path(__file__).parent.parent
PAGES = {
    path.relative_to(ROOT).as_posix(): path.read_text(encoding="utf-8")
    for path in (ROOT / "README.md", *(ROOT / "docs").glob("*.md"))
}
README = PAGES["README.md"]
PROGRAM = ["proxywasm", "python", "pip", "make", "curl", "envoy", "mitmdump", "proxywasm-mitmweb", "flask", "uvicorn", "django-admin", "pyvoy"]


def blocks(language: str, page: str = "README.md") -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", PAGES[page], re.MULTILINE | re.DOTALL)


def block(language: str, number: int = 0) -> str:
    found = blocks(language)
    assert len(found) > number, f"README has no {language} block {number}"
    return found[number]


# -- Commands ----------------------------------------------------------------------------------------------------------


def commands() -> list[str]:
    """Every command that is printed: after a dollar sign, at the head of an example; what to install everywhere."""
    found = [
        line[2:]
        for page in PAGES
        for text in blocks("console", page)
        for line in text.splitlines()
        if line.startswith("$ ")
    ]
    for path in sorted((ROOT / "examples").iterdir()):
        if path.suffix in (".py", ".yaml"):
            head = path.read_text(encoding="utf-8")
            found += re.findall(rf"^(?:# )?((?:{'|'.join(PROGRAM)}) .*)$", head, re.MULTILINE)
    for text in PAGES.values():
        found += re.findall(r"`((?:pip|make) [^`]*)`", text)
    return list(dict.fromkeys(found))


COMMANDS_PRINTED = {command: shlex.split(command, comments=True) for command in commands()}


def of(program: str, *first: str) -> list[str]:
    head = [program, *first]
    return [command for command, words in COMMANDS_PRINTED.items() if words[: len(head)] == head]


RUN = [command for kind in ("run", "inspect", "engines", "bench") for command in of("proxywasm", kind)]
SERVED = [command for command in of("proxywasm", "serve") if "--schema" not in command]


def test_commands_are_printed():
    assert len(RUN) >= 5
    assert len(SERVED) >= 3
    assert any("examples/test_a_filter.py" in command for command in of("python"))
    for words in COMMANDS_PRINTED.values():
        assert words[0].startswith("PATH=") or words[0] in PROGRAM, words
        if words[0] == "proxywasm":
            assert words[1] in COMMANDS, words


@pytest.mark.parametrize("command", RUN)
def test_the_program_does_what_is_printed(command):
    words = COMMANDS_PRINTED[command]
    ran = subprocess.run(
        [sys.executable, "-m", "proxywasm_host.cli", *words[1:]], cwd=ROOT, capture_output=True, text=True
    )
    assert (ran.returncode, bool(ran.stdout)) == (0, True), ran.stderr


@pytest.mark.parametrize("command", SERVED)
def test_the_server_takes_what_is_printed(command, monkeypatch):
    monkeypatch.chdir(ROOT)
    with serve.make_context("serve", COMMANDS_PRINTED[command][2:]) as context:
        options = context.params
    filters, file = options.pop("filters"), options.pop("file")
    settings = Source(file and file.absolute(), overrides(filters, options)).load()
    assert "http://127.0.0.1:8000" in {server.url for one in settings.all_upstreams.values() for server in one.all_servers}
    assert all(filter.file.is_file() for filter in settings.filters)
    assert settings.filters


@pytest.mark.parametrize("command", of("python"))
def test_python_does_what_is_printed(command):
    words = COMMANDS_PRINTED[command]
    if words[1:3] == ["-m", "http.server"] or words[1] in ("app.py", "plain.py", "manage.py"):
        return  # stands for anybody's server, or is one that tests/integrations/test_from_nothing.py starts
    ran = subprocess.run([sys.executable, *words[1:]], cwd=ROOT, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stdout + ran.stderr


def test_the_set_up_that_is_printed_brings_what_the_others_use():
    """`make demo` is the first command of README: all others work after it."""
    [installs] = re.findall(r"--editable '\.\[(.*?)\]'", (ROOT / "Makefile").read_text())
    assert set(installs.split(",")) >= {"cli", "serve", "testing"}
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    for command in of("make"):
        assert COMMANDS_PRINTED[command][1] in targets


def test_where_pytest_alone_is_installed_tests_run():
    """As after `make demo`: no option of this project asks for a plugin that only its own tests need."""
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:benchmark", "examples/test_a_filter.py"]
    ran = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert (ran.returncode, "4 passed" in ran.stdout) == (0, True), ran.stdout + ran.stderr


@pytest.mark.parametrize("command", of("pip"))
def test_what_is_to_be_installed_is_there(command):
    extras = set(re.findall(r"^([\w-]+) = \[", (ROOT / "pyproject.toml").read_text(), re.MULTILINE))
    for word in COMMANDS_PRINTED[command][2:]:
        path, _, names = word.partition("[")
        if path.startswith("."):
            assert (ROOT / path / "pyproject.toml").is_file(), word
        assert extras.issuperset(filter(None, names.rstrip("]").split(","))), word


def test_the_example_of_a_configuration_needs_no_engine_that_the_set_up_does_not_bring():
    example = yaml.safe_load((ROOT / "examples/gateway.yaml").read_text())
    assert "engine" not in example
    assert not any("engine" in filter for filter in example["filters"])


# -- Programs ----------------------------------------------------------------------------------------------------------


def test_the_example_prints_what_is_under_it():
    ran = subprocess.run([sys.executable, "-c", block("python")], cwd=ROOT, capture_output=True, text=True, check=True)
    assert ran.stdout == block("text")


def test_the_unit_test_passes(tmp_path):
    (tmp_path / "test_auth.py").write_text(block("python", 2))
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--rootdir", str(ROOT)]
    ran = subprocess.run([*command, str(tmp_path)], cwd=ROOT, capture_output=True, text=True)
    assert (ran.returncode, "1 passed" in ran.stdout) == (0, True), ran.stdout + ran.stderr


def test_the_tests_of_the_page_on_tests_pass(tmp_path):
    """The first one, the one that replays what is recorded, and those beside others' forms."""
    shutil.copy(ROOT / "tests" / "filters" / "rust" / "auth.wasm", tmp_path / "auth.wasm")
    shutil.copy(tmp_path / "auth.wasm", tmp_path / "fixed.wasm")
    program = [sys.executable, "-m", "proxywasm_host.cli", "run", "auth.wasm", "/x", "--config", "secret"]
    subprocess.run([*program, "--record", "failing.json"], cwd=tmp_path, capture_output=True, check=True)
    for number, text in enumerate(blocks("python", "docs/testing.md")):
        (tmp_path / f"test_{number}.py").write_text(text)
    command = [sys.executable, "-m", "pytest", "-q", "-W", "error", "-p", "no:cacheprovider"]
    ran = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert (ran.returncode, "4 passed" in ran.stdout) == (0, True), ran.stdout + ran.stderr


def test_the_application_runs_behind_the_filter(monkeypatch):
    monkeypatch.chdir(ROOT)
    names: dict[str, object] = {}
    exec(block("python", 1), names)
    assert anyio.run(get, names["app"]).body == b"Hello, world.\n"


def test_the_example_has_about_twenty_lines():
    assert len(block("python").split("\n")) <= 25


def test_the_program_with_a_driver_prints_what_goes_upstream():
    [program] = [text for text in blocks("python", "docs/integrations.md") if "AsyncDriver" in text and "Pump" not in text]
    ran = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True)
    assert (ran.returncode, ran.stderr) == (0, "")
    assert ran.stdout.startswith("RequestHeaders(headers=[(b':authority', b'example.com'), ")
    assert "(b'x-wasm', b'hello')" in ran.stdout


@pytest.mark.parametrize("page", PAGES)
def test_programs_name_nothing_that_they_do_not_import(page):
    """The blocks of docs/write-an-engine.md are one program; all others are one each."""
    programs = blocks("python", page)
    for program in ["\n".join(programs)] if "write-an-engine" in page else programs:
        command = [sys.executable, "-m", "ruff", "check", "--isolated", "--select", "F821", "--quiet", "-"]
        checked = subprocess.run(command, input=program, capture_output=True, text=True)
        undefined = re.findall(r"Undefined name `(\w+)`", checked.stdout)
        assert set(undefined) <= {"app", "application"}, checked.stdout  # which is somebody's


# -- Links -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("page", PAGES)
def test_the_files_that_are_linked_are_there(page):
    for target in re.findall(r"\]\(([^)#:]+)\)", PAGES[page]):
        assert ((ROOT / page).parent / target).exists(), target


def test_the_files_that_contributing_names_are_there():
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    named = re.findall(r"`((?:[\w.]+/)+(?:[\w.]+)?)`", text)
    assert len(named) > 40
    tops = [ROOT, *ROOT.glob("*"), *ROOT.glob("engines/*"), *ROOT.glob("proxywasm_host/*")]
    assert [name for name in named if not any((top / name).exists() for top in tops)] == []
