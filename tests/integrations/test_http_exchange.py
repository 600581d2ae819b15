"""The exchange without a server: transcripts of what goes in and what comes out.

In a transcript, ``>`` goes from the client to upstream and ``<`` back. A line is what came in; the lines indented below
it are what came out, to be sent on. A ``.`` at the end of a part ends its message; a head of a request with ``...``
is followed by something, and one with neither by what its headers say. ``* tick`` is an event of the filter's own.
The last line is the state of what the client has got.
"""

from __future__ import annotations

from functools import partial
from random import Random

import pytest

from proxywasm_host import HeaderLimits, Host, Services
from proxywasm_host.abi.native import NATIVE
from proxywasm_host.driver.dispatch import Dispatcher
from proxywasm_host.integrations.exchange import Exchange, Informational, RequestHead, ResponseHead
from proxywasm_host.integrations.exchange_base import PythonExchangeBase
from proxywasm_host.runtime import effects
from tests.support import code

LOCAL = "send_local_response 418 tea short a=b -1\n"
PAUSE = "@on_configure\nset_tick_period_milliseconds 5\n@on_request_headers\nreturn 1\n@on_tick\nset_effective_context $stream\n"
SHOUT = "@on_response_body\nset_buffer_bytes 1 0 100 HELLO!!\n"
WHOLE = "@on_response_body/eos\nset_buffer_bytes 1 0 100 WHOLE\nreturn 0\n@on_response_body\nreturn 1\n"

TRANSCRIPTS = {
    "a request and its response": ("", """
        > GET /a?b host=example.com x=1
            > GET /a?b host=example.com x=1 .
        < 200 content-length=6
        < +Hello. .
            < 200 content-length=6
            < +Hello. .
        = ANSWERED
    """),
    "a filter that adds a header each way": ("@on_request_headers\nadd_header_map_value 0 a 1\n@on_response_headers\nadd_header_map_value 2 b 2\n", """
        > GET / host=h .
            > GET / host=h a=1 .
        < 200 .
            < 200 b=2 .
        = ANSWERED
    """),
    "what belongs to one connection stays there, both ways": ("", """
        > GET / host=h connection=close,x-hop x-hop=1 keep-alive=5 upgrade=h2c te=gzip,trailers expect=100-continue x=1
            > GET / host=h te=trailers x=1 .
        < 200 connection=x-back x-back=1 keep-alive=5 x=2 .
            < 200 x=2 .
        = ANSWERED
    """),
    "bodies in parts, both ways": ("@on_request_body\n@on_response_body\n", """
        > POST / host=h transfer-encoding=chunked
            > POST / host=h
        > +one
            > +one
        > +two .
            > +two .
        < 200
            < 200
        < +three
            < +three
        < + .
            < + .
        = ANSWERED
    """),
    "a response while the request is still coming": ("", """
        > POST / host=h content-length=6
        > +one
            > POST / host=h content-length=6
            > +one
        < 200 .
            < 200 .
        > +two .
            > +two .
        = ANSWERED
    """),
    "trailers, both ways": ("@on_request_trailers\nadd_header_map_value 1 a 1\n@on_response_trailers\nadd_header_map_value 3 b 2\n", """
        > POST / host=h ...
            > POST / host=h
        > +x
            > +x
        > trailers t=1
            > trailers t=1 a=1
        < 200
            < 200
        < +y
            < +y
        < trailers t=2
            < trailers t=2 b=2
        = ANSWERED
    """),
    "HEAD: the length is another response's, and nothing follows": ("", """
        > HEAD / host=h
            > HEAD / host=h .
        < 200 content-length=6
            < 200 content-length=6 .
        < +Hello. .
        = ANSWERED
    """),
    "204: no length, and nothing follows": ("", """
        > GET / host=h
            > GET / host=h .
        < 204 content-length=6 a=b
            < 204 a=b .
        < +Hello. .
        = ANSWERED
    """),
    "304: its length is another response's": ("", """
        > GET / host=h
            > GET / host=h .
        < 304 content-length=6 etag=x
            < 304 etag=x .
        = ANSWERED
    """),
    "a filter asks by HEAD for a client that did not": ("@on_request_headers\nreplace_header_map_value 0 :method HEAD\n", """
        > GET / host=h
            > HEAD / host=h .
        < 200 content-length=6
            < 200 content-length=0 .
        = ANSWERED
    """),
    "a filter asks by GET for a client that asked by HEAD": ("@on_request_headers\nreplace_header_map_value 0 :method GET\n", """
        > HEAD / host=h
            > GET / host=h .
        < 200 content-length=6
            < 200 content-length=6 .
        < +Hello. .
        = ANSWERED
    """),
    "a filter makes a 204 of a response with a body": ("@on_response_headers\nreplace_header_map_value 2 :status 204\n", """
        > GET / host=h
            > GET / host=h .
        < 200 content-length=6
            < 204 .
        < +Hello. .
        = ANSWERED
    """),
    "heads of 1xx go past the filters": ("@on_response_headers\nadd_header_map_value 2 a 1\n", """
        > GET / host=h
            > GET / host=h .
        < 103 link=x connection=close
            < 103 link=x
        < 100
            < 100
        < 200 .
            < 200 a=1 .
        < 103 link=late
        = ANSWERED
    """),
    "a body that is replaced has its length": (SHOUT, """
        > GET / host=h
            > GET / host=h .
        < 200 content-length=6
        < +Hello. .
            < 200 content-length=7
            < +HELLO!! .
        = ANSWERED
    """),
    "a body that is replaced has its length when its end comes alone": (SHOUT.replace("body\n", "body/1\n"), """
        > GET / host=h
            > GET / host=h .
        < 200 content-length=6
        < +Hello.
        < + .
            < 200 content-length=7
            < +HELLO!!
            < + .
        = ANSWERED
    """),
    "a body that is replaced, of a length that is not known, has none": (SHOUT, """
        > GET / host=h
            > GET / host=h .
        < 200 content-length=12
        < +Hello.
            < 200
            < +HELLO!!
        < +Hello. .
            < +HELLO!! .
        = ANSWERED
    """),
    "a body that is replaced as a whole": (WHOLE, """
        > GET / host=h
            > GET / host=h .
        < 200 content-length=12
        < +Hello.
        < +Hello. .
            < 200 content-length=5
            < +WHOLE .
        = ANSWERED
    """),
    "a wrong length that a filter gives a request": ("@on_request_headers\nreplace_header_map_value 0 content-length 999\n", """
        > POST / host=h content-length=4
        > +body .
            > POST / host=h content-length=4
            > +body .
        < 200 .
            < 200 .
        = ANSWERED
    """),
    "a length of upstream's that is none": ("@on_response_body\n", """
        > GET / host=h
            > GET / host=h .
        < 200 content-length=abc
        < +Hello. .
            < 200 content-length=6
            < +Hello. .
        = ANSWERED
    """),
    "a local response instead of upstream's": ("@on_request_headers\n" + LOCAL, """
        > GET / host=h
            < 418 a=b content-length=5 content-type=text/plain
            < +short .
        < 200 .
        = ANSWERED
    """),
    "a local response while the request is read": ("@on_request_body/2\n" + LOCAL, """
        > POST / host=h content-length=6
        > +one
            > POST / host=h content-length=6
            > +one
        > +two .
            < 418 a=b content-length=5 content-type=text/plain
            < +short .
        < 200 .
        = ANSWERED
    """),
    "a local response in place of upstream's head": ("@on_response_headers\n" + LOCAL, """
        > GET / host=h
            > GET / host=h .
        < 200 content-length=6
            < 418 a=b content-length=5 content-type=text/plain
            < +short .
        < +Hello. .
        = ANSWERED
    """),
    "a local response that is too late cuts": ("@on_response_body\n" + LOCAL, """
        > GET / host=h
            > GET / host=h .
        < 200
            < 200
        < +Hello.
        = CUT
    """),
    "a local response to HEAD": ("@on_request_headers\n" + LOCAL, """
        > HEAD / host=h
            < 418 a=b content-length=5 content-type=text/plain .
        = ANSWERED
    """),
    "a filter that closes the stream before the response": ("@on_request_headers\nclose_stream 0\n", """
        > GET / host=h
            < 503 content-length=0 .
        = ANSWERED
    """),
    "a client that goes away": ("", """
        > POST / host=h content-length=6
        > gone
        < 200 .
        > +late .
        = GONE
    """),
    "a client that goes away while it is sent the response": ("", """
        > GET / host=h
            > GET / host=h .
        < 200
            < 200
        > gone
        < +late .
        = GONE
    """),
    "a request that breaks off before its length": ("", """
        > POST / host=h content-length=6
        > cut
            < 400 content-length=0 .
        < 200 .
        = ANSWERED
    """),
    "a request that breaks off when its response has begun": ("", """
        > POST / host=h content-length=6
        < 200
            < 200
        > cut
        < +late .
        = CUT
    """),
    "upstream that goes away before its response": ("@on_response_headers\nadd_header_map_value 2 a 1\n", """
        > GET / host=h
            > GET / host=h .
        < gone
            < 502 a=1 .
        < 200 .
        = ANSWERED
    """),
    "upstream that goes away amid its response": ("", """
        > GET / host=h
            > GET / host=h .
        < 200
            < 200
        < +Hel
            < +Hel
        < gone
        = CUT
    """),
    "upstream that goes away when all is there": ("", """
        > GET / host=h
            > GET / host=h .
        < 200 .
            < 200 .
        < gone
        = ANSWERED
    """),
    "a pause, and a tick that resumes": (PAUSE + "continue_stream 0\n", """
        > POST / host=h content-length=4
        > +body .
        * tick
            > POST / host=h content-length=4
            > +body .
        < 200 .
            < 200 .
        = ANSWERED
    """),
    "a pause, and a tick that answers": (PAUSE + LOCAL, """
        > GET / host=h
        * tick
            < 418 a=b content-length=5 content-type=text/plain
            < +short .
        = ANSWERED
    """),
    "what HTTP has no form for is not sent: a response": ("@on_response_headers\nadd_header_map_value 2 x a%0ab\n", """
        > GET / host=h
            > GET / host=h .
        < 200 .
            < 503 content-length=0 .
        = ANSWERED
    """),
    "what HTTP has no form for is not sent: a request": ("@on_request_headers\nreplace_header_map_value 0 :path /a%20b\n", """
        > GET / host=h
            < 503 content-length=0 .
        = ANSWERED
    """),
    "what HTTP has no form for is not sent: trailers": ("@on_response_trailers\nadd_header_map_value 3 x a%0ab\n", """
        > GET / host=h
            > GET / host=h .
        < 200
            < 200
        < trailers t=2
            < trailers t=2
        = ANSWERED
    """),
    "a client's value that HTTP has no form for is its own fault": ("", """
        > GET / host=h x=a\x01b
            < 400 content-length=0 .
        = ANSWERED
    """),
    "a request that can be understood in two ways": ("@on_context_create\nsay seen\n", """
        > POST / host=h content-length=4 transfer-encoding=chunked
            < 400 content-type=text/plain content-length=39
            < +Content-Length beside Transfer-Encoding .
        > +body .
        = ANSWERED
    """),
    "two hosts": ("@on_context_create\nsay seen\n", """
        > HEAD / host=a host=b
            < 400 content-type=text/plain content-length=18 .
        = ANSWERED
    """),
    "a coding that is not known": ("@on_context_create\nsay seen\n", """
        > POST / host=h transfer-encoding=gzip
            < 501 content-type=text/plain content-length=35
            < +a transfer coding that is not known .
        = ANSWERED
    """),
    "too many headers of a client": ("@on_context_create\nsay seen\n", """
        > GET / host=h a=1 b=2 c=3 d=4 e=5 f=6 g=7 h=8
            < 431 content-length=31 content-type=text/plain
            < +Request Header Fields Too Large .
        = ANSWERED
    """),
    "too many headers of upstream": ("", """
        > GET / host=h
            > GET / host=h .
        < 200 a=1 b=2 c=3 d=4 e=5 f=6 g=7 h=8
            < 502 content-length=81 content-type=text/plain
            < +upstream connect or disconnect/reset before headers. reset reason: protocol error .
        = ANSWERED
    """),
}  # fmt: skip


class Plain(Dispatcher):
    """Performs what needs no event loop."""

    def _arm(self, plugin, milliseconds):
        pass


class Sides:
    """Both sides of an exchange, in the words of a transcript."""

    def __init__(self, exchange: Exchange, driver: Dispatcher, plugin) -> None:
        self.exchange, self.driver, self.plugin = exchange, driver, plugin

    def event(self, line: str) -> None:
        arrow, what, *rest = line.split(" ")
        ends = rest[-1:] == ["."]
        pairs = [tuple(part.encode("latin-1") for part in each.split("=", 1)) for each in rest if "=" in each]
        exchange, text = self.exchange, line[3:].removesuffix(" .").encode()
        if arrow == "*":
            self.driver.tick(self.plugin)
        elif what == "gone":
            exchange.client_gone() if arrow == ">" else exchange.upstream_gone()
        elif what == "cut":
            exchange.request_cut()
        elif what[0] == "+":
            (exchange.request_body if arrow == ">" else exchange.response_body)(text, ends)
        elif what == "trailers":
            (exchange.request_trailers if arrow == ">" else exchange.response_trailers)(pairs)
        elif arrow == ">":
            follows = None if not rest or rest[-1] not in (".", "...") else ends
            exchange.begin(what.encode(), rest[0].encode(), b"http", pairs, follows)
        elif what[0] == "1":
            exchange.informational(int(what), pairs)
        else:
            exchange.response(int(what), pairs, ends)

    def out(self):
        for arrow, queue in ((">", self.exchange.to_upstream), ("<", self.exchange.to_client)):
            while queue:
                yield f"{arrow} {self.shown(queue.popleft())}"

    @staticmethod
    def shown(part) -> str:
        ends = " ." if getattr(part, "end_stream", False) else ""
        if isinstance(part, (effects.RequestBody, effects.ResponseBody)):
            return f"+{part.data.decode()}{ends}"
        if isinstance(part, (effects.RequestTrailers, effects.ResponseTrailers)):
            first, pairs = "trailers", part.trailers
        elif isinstance(part, RequestHead):
            first, pairs = f"{part.method.decode()} {part.path.decode()}", part.headers
        else:
            assert isinstance(part, (ResponseHead, Informational))
            first, pairs = str(part.status), part.headers
        return " ".join([first, *[f"{name.decode()}={value.decode()}" for name, value in pairs]]) + ends


OWN = {name: value for name, value in vars(Exchange).items() if name not in ("__dict__", "__weakref__")}
FORMS = {"in Python": type("Exchange", (PythonExchangeBase,), OWN), **({} if NATIVE is None else {"in C": Exchange})}
"""The usual case is written twice; what is unusual stands once, above both."""


@pytest.fixture(params=FORMS.values(), ids=FORMS)
def form(request):
    return request.param


@pytest.fixture
def begin_with(engine, log):
    """Make an exchange of a form through a script: its two sides."""
    with Host(engine, services=Services(log=log)) as host:
        driver = Plain(host)
        opened = []

        def begin(form, script: str, **options) -> Sides:
            limits = HeaderLimits(count=options.pop("headers", 7))
            buffer_limit = options.pop("buffer_limit", 1000)
            plugin = host.load_plugin(code("c/probe_0_2_1"), name="probe", configuration=script)
            driver.perform(host.drain())
            stream = host.http_stream([plugin], header_limits=limits, buffer_limit=buffer_limit)
            opened.append(form(driver, stream, **options))
            return Sides(opened[-1], driver, plugin)

        yield begin
        for exchange in opened:
            exchange.close()
            assert exchange.stream.closed
        assert driver.streams == 0


@pytest.fixture
def begin(begin_with, form):
    return partial(begin_with, form)


@pytest.mark.parametrize("name", TRANSCRIPTS)
def test_a_transcript(begin, log, name):
    script, text = TRANSCRIPTS[name]
    woken = []
    sides = begin(script, wake=lambda: woken.append(1))
    expected = [line for line in text.split("\n") if line.strip()]
    said = []
    for line in expected:
        if line[:12].isspace():
            continue
        if line.lstrip()[0] == "=":
            said.append(f"        = {sides.exchange.state.name}")
            continue
        said.append(line)
        sides.event(line.strip())
        assert bool(woken) is ("* " in line), "only what others bring about wakes the carrier"
        woken.clear()
        said += [f"            {out}" for out in sides.out()]
    assert "\n".join(said) == "\n".join(expected)
    assert "seen" not in log.take()


def play(sides: Sides, *lines: str) -> list[str]:
    """Let several things happen before anything is sent: what is to be sent then."""
    for line in lines:
        sides.event(line)
    return list(sides.out())


def test_what_was_not_sent_yet_is_taken_back(begin):
    sides = begin("@on_response_body/2\n" + LOCAL)
    assert play(sides, "> GET / host=h", "< 200", "< +one", "< +two") == [
        "> GET / host=h .",
        "< 503 content-length=0 .",
    ]


def test_what_was_sent_is_cut(begin):
    sides = begin("@on_response_body/2\n" + LOCAL)
    assert play(sides, "> GET / host=h", "< 200")[1:] == ["< 200"]
    assert play(sides, "< +one", "< +two") == []
    assert (sides.exchange.state.name, sides.exchange.finished) == ("CUT", True)


def test_a_client_of_http_1_0_is_told_the_length(begin):
    """It knows no chunks: the whole body is waited for, up to the limit."""
    body = ["< +Hello.", "< +Hello. ."]
    old = begin(SHOUT, http_1_0=True)
    assert play(old, "> GET / host=h", "< 200 content-length=12", *body)[1] == "< 200 content-length=14"
    little = begin(SHOUT, http_1_0=True, buffer_limit=7)
    assert play(little, "> GET / host=h", "< 200 content-length=12", *body)[1] == "< 200"


def test_lengths_are_left_alone_where_that_is_wanted(begin):
    sides = begin(SHOUT, fix_content_length=False)
    assert play(sides, "> GET / host=h", "< 200 content-length=6")[1:] == ["< 200 content-length=6"]


def test_a_length_that_is_no_number_is_left_out_even_there(begin):
    sides = begin(
        "@on_response_headers\nreplace_header_map_value 2 content-length six\n", fix_content_length=False
    )
    assert play(sides, "> GET / host=h", "< 200 content-length=6")[1:] == ["< 200"]


@pytest.mark.parametrize(("second", "out"), [("6", ["< 200 content-length=6"]), ("7", ["< 200"])])
def test_one_length_goes_out_where_filters_can_add_another(engine, log, form, second, out):
    """Envoy does not let them; a host that follows only the specification does."""
    script = f"@on_response_headers\nadd_header_map_value 2 content-length {second}\n"
    with Host(engine, profile="spec", services=Services(log=log)) as host:
        driver = Plain(host)
        plugin = host.load_plugin(code("c/probe_0_2_1"), configuration=script)
        driver.perform(host.drain())
        exchange = form(driver, host.http_stream([plugin]), fix_content_length=False)
        sides = Sides(exchange, driver, plugin)
        assert play(sides, "> GET / host=h", "< 200 content-length=6")[1:] == out
        exchange.close()


def test_when_to_read(begin):
    """No more than a part ahead, and nothing while a filter holds more than its limit."""
    sides = begin("@on_configure\nset_tick_period_milliseconds 5\n@on_request_headers\nreturn 4\n@on_tick\n"
                  "set_effective_context $stream\ncontinue_stream 0\n", buffer_limit=4)  # fmt: skip
    exchange = sides.exchange
    assert play(sides, "> POST / host=h ...") == []
    assert (exchange.wants_request, exchange.request_held, exchange.over) == (True, True, False)
    assert play(sides, "> +12345") == []
    assert (exchange.wants_request, exchange.listens) == (False, False)
    sides.event("* tick")
    assert (exchange.wants_request, exchange.request_held) == (False, False)  # two parts wait for upstream
    assert list(sides.out()) == ["> POST / host=h", "> +12345"]
    assert exchange.wants_request
    assert play(sides, "> +6 .") == ["> +6 ."]
    assert (exchange.wants_request, exchange.listens, exchange.wants_response) == (False, True, True)  # for its leaving
    assert play(sides, "< 200 .") == ["< 200 ."]
    assert (exchange.wants_response, exchange.over, exchange.finished, exchange.listens) == (False, True, True, False)


def test_it_is_finished_when_all_was_taken(begin):
    sides = begin("")
    sides.event("> GET / host=h")
    sides.event("< 200 .")
    assert (sides.exchange.answered, sides.exchange.finished) == (True, False)
    assert list(sides.out()) == ["> GET / host=h .", "< 200 ."]
    assert sides.exchange.finished


def test_what_cannot_be_sent_is_told_in_the_log(begin, caplog):
    play(begin("@on_response_headers\nadd_header_map_value 2 x a%0ab\n"), "> GET / host=h", "< 200 .")
    [record] = caplog.records
    assert record.getMessage() == (
        "answered 503: the response that came out of the filters cannot be sent: b':status': b'200', b'x': b'a\\nb'"
    )


@pytest.mark.parametrize(
    ("lines", "details"),
    [
        (["> GET / host=h", "< gone"], "upstream_reset_before_response_started{connection_termination}"),
        (["> GET / host=h", "< 200", "< gone"], "upstream_reset_after_response_started{connection_termination}"),
        (["> GET / host=h", "> gone"], "downstream_remote_disconnect"),
        (["> GET / host=h", "< 200 ."], "via_upstream"),
    ],
)
def test_envoys_details(begin, lines, details):
    sides = begin("")
    for line in lines:
        play(sides, line)
    stream = sides.exchange.stream
    assert (stream.reset_details or stream.details) == details


def test_a_list_of_headers_is_copied_once_on_its_way_in_and_once_on_its_way_out(begin):
    """What filters have in their hands is the list that was made of what came, and of it what goes is made."""
    sides = begin("@on_request_headers\nadd_header_map_value 0 a 1\n@on_response_headers\nadd_header_map_value 2 b 2\n")
    stream, lists = sides.exchange.stream, []

    def noting(feed):
        def noted(headers, end_stream, *, owned):
            [effect] = feed(headers, end_stream, owned=owned)
            lists.append((headers, effect.headers))
            return [effect]

        return noted

    stream.request_headers, stream.response_headers = noting(stream.request_headers), noting(stream.response_headers)
    assert play(sides, "> GET / host=h", "< 200 .") == ["> GET / host=h a=1 .", "< 200 b=2 ."]
    for direction, (made, came_out) in enumerate(lists):
        assert made is came_out is stream._chain(direction).headers


def test_an_exchange_is_made_once_and_of_what_is_wanted(form):
    with pytest.raises(TypeError):
        form()
    with pytest.raises(TypeError):
        form(None, None, wakes=print)


EVENTS = """> GET / host=h|> GET / host=h .|> HEAD / host=h|> POST / host=h content-length=6|> POST / host=h ...|> GET x host=h|
    > GET / host=h content-length=0|> OPTIONS * host=h x=1 te=trailers|> POST / host=h transfer-encoding=chunked|
    > +body|> +body .|> + .|> trailers t=1|> gone|> cut|< 103 link=x|< 200|< 200 .|< 200 content-length=6|< 200 content-length=0|
    < 204 content-length=6|< 304 a=b .|< 200 connection=close a=b|< 999|< 200 content-length=abc|< +Hello.|< +Hello. .|< + .|
    < trailers t=2|< gone""".replace("\n    ", "").split("|")


@pytest.mark.skipif(NATIVE is None, reason="there is no compiler, or PROXYWASM_NATIVE=no")
@pytest.mark.parametrize("seed", range(8))
def test_both_forms_do_the_same_with_events_by_chance(begin_with, seed):
    """Scripts of the transcripts, and events in likely and unlikely orders."""
    chance = Random(seed)
    scripts = [*{script: None for script, _ in TRANSCRIPTS.values()}]
    for _ in range(60):
        script, first, more = chance.choice(scripts), chance.choice(EVENTS[:9]), chance.choices(EVENTS[9:], k=8)
        options = {"fix_content_length": chance.random() < 0.8, "http_1_0": chance.random() < 0.2}
        told = []
        for form in FORMS.values():
            sides, lines = begin_with(form, script, **options), []
            for event in (first, *more):
                try:
                    lines += [event, *play(sides, event), str(sides.exchange.state)]
                except RuntimeError as error:  # of a carrier that feeds what cannot be
                    lines.append(str(error))
                lines.append([getattr(sides.exchange, name) for name in LOOKED_AT])
            told.append(lines)
        assert told[0] == told[1], script


LOOKED_AT = (
    "over",
    "finished",
    "answered",
    "wants_request",
    "wants_response",
    "listens",
    "request_ended",
    "response_ended",
)
