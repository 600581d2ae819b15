"""The group of commands. Each is imported when it is run, so that ``--help`` is instant and opens no engine."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from importlib import import_module
from typing import Any

import click

import proxywasm_host
from proxywasm_host.cli.exit_codes import Exit, exit_of
from proxywasm_host.errors import ProxyWasmError, not_among

__all__ = ["app", "start"]

COMMANDS = {
    "run": "Send one request through filters, and show what they do to it.",
    "inspect": "Describe a filter: its ABI, SDK, callbacks and hostcalls, and whether it would load.",
    "engines": "List the WebAssembly engines: which are usable here, and what to do about the others.",
    "serve": "Put filters in front of an HTTP server: a reverse proxy with metrics, reloading and a live page.",
    "ext-proc": "Run filters for a gateway without WebAssembly that uses ext_proc: Envoy, agentgateway, …",
    "ext-authz": "Run filters that decide whether requests may pass, for servers that ask by ext_authz or HTTP.",
    "convert": "Write a configuration in the form of another host, and list the settings that it cannot express.",
    "test": "Run suites of tests: in YAML, and Google's tests.textpb and tests.yaml unchanged.",
    "fuzz": "Send a filter random requests, and check the result of each.",
    "replay": "Run a recorded request again, and show the differences; or print it as a test.",
    "step": "Walk through a recorded request, callback by callback, forward and back.",
    "pack": "Build a module from a filter in Python, for this host, Envoy and all others.",
    "bench": "Measure the cost of one request through filters.",
}

SETTINGS = {"help_option_names": ["-h", "--help"], "max_content_width": 100}

EPILOG = """
\b
Exit codes: 0 done, 1 engines do not agree, a test failed or a replay differs, 2 wrong usage, 3 module invalid,
4 engine not available, 5 the guest trapped or refused, 124 deadline exceeded. Results go to standard output,
everything else to standard error.

\b
Completion in your shell:
  bash  eval "$(_PROXYWASM_COMPLETE=bash_source proxywasm)"
  zsh   eval "$(_PROXYWASM_COMPLETE=zsh_source proxywasm)"
  fish  _PROXYWASM_COMPLETE=fish_source proxywasm | source
"""


class Commands(click.Group):
    """A group of commands, each in the module of its name."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        name = args[0]
        if name.endswith((".wasm", ".py")):
            raise click.UsageError(f"the command is missing: proxywasm run {' '.join(args)}", ctx)
        if name not in COMMANDS and not name.startswith("-"):
            raise click.UsageError(not_among("command", name, COMMANDS), ctx)
        return super().resolve_command(ctx, args)

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        command: click.Command = import_module(f"proxywasm_host.cli.{cmd_name.replace('-', '_')}").command
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))


@click.command(cls=Commands, epilog=EPILOG, context_settings=SETTINGS)
@click.version_option(proxywasm_host.__version__, prog_name="proxywasm")
def app() -> None:
    """Run Proxy-Wasm filters: those that were built for Envoy, Istio, Kong or Higress."""


def start(argv: Sequence[str] | None) -> int:
    """Run a command line. Returns the exit code."""
    arguments = sys.argv[1:] if argv is None else list(argv)
    try:
        result: Any = app.main(arguments, "proxywasm", standalone_mode=False)
        sys.stdout.flush()
    except click.ClickException as error:
        error.show()
        return Exit.USAGE
    except click.exceptions.Abort:
        return 130
    except ProxyWasmError as error:
        click.echo(f"error: {error}", err=True)
        return exit_of(error)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # otherwise Python complains at exit
        return 1
    except SystemExit as end:
        return int(end.code or 0)
    return int(result or 0)
