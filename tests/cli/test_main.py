"""The program itself: help, completion, what it needs, what it imports."""

from __future__ import annotations

import importlib.util
import subprocess
import sys

import pytest

import proxywasm_host
from proxywasm_host import remedy
from proxywasm_host.cli import main
from tests.cli.conftest import HEADERS


def test_help_tells_commands_exit_codes_and_completion(command):
    result = command("--help")
    assert result.code == 0
    for word in ("run", "inspect", "engines", "test", "fuzz", "bench", "124 deadline", "_PROXYWASM_COMPLETE=bash_source"):
        assert word in result.out


@pytest.mark.parametrize("name", ["run", "inspect", "engines", "test", "fuzz", "replay", "step", "bench"])
def test_each_command_has_help(command, name):
    result = command(name, "-h")
    assert (result.code, result.err) == (0, "")
    assert result.out.startswith(f"Usage: proxywasm {name} [OPTIONS]")


def test_examples_stand_on_lines_of_their_own(command):
    assert "  proxywasm run auth.wasm /x --config callout:idp --callout idp=403:no\n" in command("run", "--help").out
    assert (
        "  proxywasm bench a.wasm b.wasm POST /upload -d @photo.jpg --requests 10000 --json\n"
        in command("bench", "-h").out
    )


def test_version(command):
    assert command("--version").out == f"proxywasm, version {proxywasm_host.__version__}\n"


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["auth.wasm", "/x"], "the command is missing: proxywasm run auth.wasm /x"),
    ],
)
def test_a_command_that_there_is_not(command, words, told):
    result = command(*words)
    assert (result.code, result.out, told in result.complaint) == (2, "", True)


def test_no_command_shows_help(command):
    result = command()
    assert (result.code, "Usage: proxywasm" in result.err) == (2, True)


def test_without_the_extra_one_sentence_says_what_to_install(monkeypatch, capsys):
    found = importlib.util.find_spec
    monkeypatch.setattr("proxywasm_host.cli.find_spec", lambda name: None if name == "rich" else found(name))
    assert main(["--help"]) == 2
    assert capsys.readouterr().err == f"proxywasm needs rich: {remedy.install_extra('cli')}\n"


def test_the_arguments_of_the_process_are_taken_if_none_are_given(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["proxywasm", "--version"])
    assert main() == 0
    assert capsys.readouterr().out.startswith("proxywasm, version")


def test_completion(monkeypatch, command):
    monkeypatch.setenv("_PROXYWASM_COMPLETE", "bash_complete")
    monkeypatch.setenv("COMP_WORDS", "proxywasm in")
    monkeypatch.setenv("COMP_CWORD", "1")
    result = command()
    assert (result.code, result.out) == (0, "plain,inspect\n")


def test_completion_of_engines(monkeypatch, command):
    monkeypatch.setenv("_PROXYWASM_COMPLETE", "bash_complete")
    monkeypatch.setenv("COMP_WORDS", "proxywasm run --engine wasmt")
    monkeypatch.setenv("COMP_CWORD", "3")
    assert command().out == "plain,wasmtime\n"


def test_help_imports_no_engine_and_as_a_module_it_is_the_same_program():
    script = (
        "import sys; from proxywasm_host.cli import main; main(['--help']);"
        "print([name for name in sys.modules if name.split('.')[0] in ('wasmtime', 'rich', 'proxywasm_engine_wasmtime')])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"
    module = subprocess.run([sys.executable, "-m", "proxywasm_host.cli", "--help"], capture_output=True, text=True)
    assert (module.returncode, module.stdout) == (0, "\n".join(done.stdout.splitlines()[:-1]) + "\n")


def test_an_interrupt_is_told_by_the_exit_code(monkeypatch, command):
    def interrupted():
        raise KeyboardInterrupt

    monkeypatch.setattr("proxywasm_host.cli.engines.list_engines", interrupted)
    assert command("engines").code == 130


@pytest.mark.parametrize("arguments", [["inspect", HEADERS, "--json"], ["inspect", HEADERS]])
def test_a_reader_that_goes_away_is_no_error(arguments):
    done = subprocess.run(
        ["bash", "-c", 'exec 3> >(:); sleep 0.1; "$0" -m proxywasm_host.cli "$@" >&3', sys.executable, *arguments],
        capture_output=True, text=True,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (1, "")
