"""``proxywasm run``: sends one request through filters."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import click

from proxywasm_host.abi.hostcalls.callouts import NO_CLUSTER
from proxywasm_host.abi.marshal import Call, Refusal
from proxywasm_host.abi.types import LogLevel
from proxywasm_host.cli.compare import agreement, check_several, on_all_engines
from proxywasm_host.cli.exit_codes import Exit, exit_of, exit_of_failure
from proxywasm_host.cli.json_output import dump, run_result
from proxywasm_host.cli.not_http import why_not_http
from proxywasm_host.cli.options import CommandLine, command_line_options
from proxywasm_host.cli.parameter_types import Output, OutputFile
from proxywasm_host.cli.render import EMPTY, Screen, facts, failure_report, hanging, outcome, timeline
from proxywasm_host.cli.sdk import origin
from proxywasm_host.engine.protocol import TrapKind
from proxywasm_host.errors import ProxyWasmError
from proxywasm_host.recording.file_format import Recording
from proxywasm_host.recording.redaction import Redaction
from proxywasm_host.recording.tap import WHOLE, Tap
from proxywasm_host.runtime.failure import FailState, Failure, PluginError
from proxywasm_host.runtime.host import Host
from proxywasm_host.runtime.http import HttpStream
from proxywasm_host.services.log import printable
from proxywasm_host.testing import ExchangeResult, Recorder

__all__ = ["command"]

ALL = "all"
LEVELS = [level.name.lower() for level in LogLevel]


@click.command("run")
@click.argument("words", metavar="FILTER.wasm… [METHOD] URL", nargs=-1, required=True, type=click.Path())
@command_line_options
@click.option("--log-level", type=click.Choice(LEVELS), default="info", show_default=True, help="Of guests' log lines.")
@click.option("--trace", is_flag=True, help="List every hostcall, with its answer and the reason of a refusal.")
@click.option("--record", metavar="FILE", type=OutputFile(), help="Record the request for `proxywasm replay`.")
@click.option(
    "--redact", metavar="NAME", multiple=True, help="A header whose value is replaced by 'redacted', for --record."
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead.")
@click.option("--color/--no-color", default=None, help="Override the terminal and NO_COLOR.")
def command(
    words: Sequence[str],
    log_level: str,
    trace: bool,
    record: Output | None,
    redact: Sequence[str],
    as_json: bool,
    color: bool | None,
    **options: Any,
) -> int:
    """Send one request through HTTP filters, and show what they do to it and to its response.

    No connection is opened: options give upstream's response, by default 200 without a body. Several filters make a
    chain, in the order of the request. An option of a filter is given once for all filters, or once for each.

    \b
    proxywasm run auth.wasm http://example.com/ -H 'authorization: Bearer t' --config @auth.json
    proxywasm run a.wasm b.wasm POST /upload -d @photo.jpg --response-status 201 --trace
    proxywasm run auth.wasm /x --config callout:idp --callout idp=403:no
    proxywasm run auth.wasm /x --engine all   (exit code 1 if the engines do not agree)
    """  # noqa: D301 - click wants the character
    if ALL in options["engine"] and record is not None:
        raise click.UsageError("--record is for one engine: `proxywasm replay FILE --engine all` compares them")
    if ALL in options["engine"]:
        return compare(words, LEVELS.index(log_level), as_json, color, options)
    command_line = CommandLine.of(words, options)
    recorder = Recorder(LEVELS.index(log_level))
    if record is None:
        result, error, ran = perform(command_line, recorder)
    else:
        result, error, ran = write_down(command_line, recorder, record, redact)
    if as_json:
        click.echo(dump(run_result(result, recorder, error)))
    elif ran:
        request, response = command_line.request, command_line.response
        screen = Screen(color)
        screen.print(facts(ran))
        screen.print(timeline(recorder.timeline, request, response, trace=trace))
        if not isinstance(error, ProxyWasmError):
            screen.print(outcome(request, response, result))
    code = tell(error, color)
    if not isinstance(error, ProxyWasmError):
        more = [*why_not_http(command_line, result), *unknown_clusters(result)]
        Screen(color, err=True).print(hanging(2, hint) for hint in more)
    return code


def compare(words: Sequence[str], level: int, as_json: bool, color: bool | None, options: dict[str, Any]) -> int:
    """Run on every usable engine: exit code 1 if they do not agree, else that of the run."""

    def on(name: str, recorder: Recorder, settle: Callable[[Host], None]) -> tuple[ExchangeResult, Any]:
        command_line = CommandLine.of(words, {**options, "engine": (name,)})
        return perform(command_line, recorder, settle)[:2]

    outcomes = on_all_engines(on, level)
    differences = agreement(outcomes)
    several = len(outcomes) > 1
    if as_json:
        results = {outcome.engine: outcome.result for outcome in outcomes}
        click.echo(dump({"agree": not differences if several else None, "results": results}))
    else:
        for outcome in outcomes:
            click.echo(f"{outcome.engine}: {outcome.counts}")
        if several:
            click.echo("\n".join(differences) or "All agree.")
    check_several(outcomes)
    return Exit.DISAGREE if differences else tell(outcomes[0].error, color)


def write_down(
    command_line: CommandLine, recorder: Recorder, file: Output, redact: Sequence[str]
) -> tuple[ExchangeResult, ProxyWasmError | Failure | None, list[str]]:
    """Call `perform`, and write a recording of the request. Raises: click.UsageError."""
    options = command_line.options
    if options["hostcalls"]:
        raise click.UsageError("a recording cannot contain your own hostcalls: remove --record or --hostcalls")
    hidden = {name.lower().encode() for name in redact}
    for message in (command_line.request, command_line.response):
        message.headers = [(name, b"redacted" if name in hidden else value) for name, value in message.headers]
    made: list[Recording] = []
    taps: list[Tap] = []

    def listen(host: Host) -> None:
        taps.append(Tap(host, lambda recording, _: made.append(recording), WHOLE, Redaction(credentials=False)))

    def begin(stream: HttpStream) -> None:
        taps[0].begin(stream)

    performed = perform(command_line, recorder, listen, begin)
    if taps:
        recording = made[0] if made else taps[0].not_started(command_line.chain)
        file.write(recording.dump())
    return performed


def perform(
    command_line: CommandLine,
    recorder: Recorder,
    settle: Callable[[Host], None] = lambda _: None,
    began: Callable[[HttpStream], None] | None = None,
) -> tuple[ExchangeResult, ProxyWasmError | Failure | None, list[str]]:
    """Load the filters and send the request. Returns the result, the failure, and facts about the run.

    `settle` is called with the host before a filter is loaded, `began` with the stream before it is fed. If there are
    no facts, no guest ran. The plugins are not closed, because the process ends after this request.
    """
    ran: list[str] = []
    host: Host | None = None
    try:
        host = command_line.host(recorder, listener=recorder)
        settle(host)
        ran.append(f"{host.engine.name} {host.engine.version}")
        plugins = command_line.load(host)
        ran += [f"{plugin.name}: {origin(plugin._vm.bytecode)}" for plugin in plugins]
        result = command_line.send(host, plugins, recorder, began)
    except ProxyWasmError as error:
        return ExchangeResult(), error, ran if recorder.timeline else []
    finally:
        for plugin in host.plugins if host is not None else ():
            plugin._vm.close()
    return result, result.failure, ran


def unknown_clusters(result: ExchangeResult) -> Iterator[str]:
    """The option to add for a callout that was refused because its cluster is unknown."""
    calls = [event for invocation in result.invocations for event in invocation.events if isinstance(event, Call)]
    clusters = [name for call in calls if isinstance(call.result, Refusal) for name in call.result.about(NO_CLUSTER)]
    for cluster in dict.fromkeys(clusters):
        say = f"--callout {printable(str(cluster))}=200"
        yield f"The filter calls the cluster {cluster!r}, which has no answer here: add {say}."


def tell(error: ProxyWasmError | Failure | None, color: bool | None) -> int:
    """Report an error on standard error. Returns the exit code."""
    if error is None:
        return Exit.OK
    screen = Screen(color, err=True)
    failure = error.failure if isinstance(error, PluginError) else error
    if isinstance(failure, Failure):
        screen.print([EMPTY, *failure_report(failure), *(hanging(2, hint) for hint in hints(failure))])
        return exit_of_failure(failure)
    screen.print([hanging(2, ("error: ", "bold red"), str(error))])
    return exit_of(failure)


def hints(failure: Failure) -> Iterator[str]:
    """Advice on a failure."""
    if failure.kind == "deadline":
        yield "The deadline is for each callback: --deadline SECONDS allows more, --deadline 0 removes it."
    elif failure.trap is TrapKind.MEMORY_LIMIT:
        yield "--memory-limit SIZE allows more."
    elif failure.kind == "refused" and failure.state is FailState.START:
        yield "The filter did not accept its VM configuration: give it one that it understands, by --vm-config."
    elif failure.kind == "refused":
        yield "The filter did not accept its configuration: give it one that it understands, by --config."
