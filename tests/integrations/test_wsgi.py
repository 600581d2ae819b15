"""The WSGI middleware: what the application gets, what the client gets; on real threads, with the server of the
standard library too."""

from __future__ import annotations

import io
import json
import os
import threading
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from wsgiref.simple_server import WSGIRequestHandler, make_server
from wsgiref.util import setup_testing_defaults
from wsgiref.validate import validator

import pytest

from proxywasm_host import PluginError, ProxyWasmError, Services
from proxywasm_host.integrations.wsgi import Filter, ProxyWasmMiddleware, RequestCut, StreamReset
from proxywasm_host.testing.compliance.processes import in_a_child
from tests.integrations.test_asgi import ENDED, ENDS
from tests.support import code, held_by_another_thread


class Response:
    def __init__(self) -> None:
        self.status, self.headers, self.parts = "", [], []

    def start(self, status, headers, exc_info=None):
        self.status, self.headers = status, headers
        return self.parts.append

    @property
    def body(self) -> bytes:
        return b"".join(self.parts)


def get(app, method="GET", path="/", body=b"", response=None, **environ) -> Response:
    environ = {"REQUEST_METHOD": method, "SCRIPT_NAME": "", "PATH_INFO": path, "QUERY_STRING": "", **environ}
    if body:
        environ.update({"wsgi.input": io.BytesIO(body), "CONTENT_LENGTH": str(len(body))})
    setup_testing_defaults(environ)
    response = response or Response()
    parts = app(environ, response.start)
    try:
        for part in parts:
            response.parts.append(part)
    finally:
        if hasattr(parts, "close"):
            parts.close()
    return response


@pytest.fixture
def wrap(engine, log):
    opened = []

    def wrap(app, *filters, **options):
        chain = [
            Filter(code("c/probe_0_2_1"), f"probe{number}", configuration=each) if isinstance(each, str) else each
            for number, each in enumerate(filters, 1)
        ]
        opened.append(ProxyWasmMiddleware(app, chain, engine=engine, services=Services(log=log), **options))
        return opened[-1]

    yield wrap
    for app in opened:
        app.close()


def hello(environ, start_response):
    start_response("200 Fine", [("Content-Length", "6"), ("Content-Type", "text/plain"), ("Server", "app")])
    return [b"Hello."]


def echo(environ, start_response):
    start_response("200 OK", [])
    return [environ["wsgi.input"].read()]


def tell(environ, start_response):
    """The environ as JSON."""
    start_response("200 OK", [("content-type", "application/json")])
    return [json.dumps({key: value for key, value in environ.items() if isinstance(value, str)}).encode()]


def test_what_a_filter_changes_keeps_the_place_where_the_application_is_mounted(wrap):
    script = "@on_request_headers\nreplace_header_map_value 0 :path /app/new%2520path?q=1\n"
    environ = json.loads(get(wrap(tell, script), path="/old path", SCRIPT_NAME="/app", HTTP_CONNECTION="close").body)
    expected = {"SCRIPT_NAME": "/app", "PATH_INFO": "/new path", "QUERY_STRING": "q=1"}
    assert {name: environ.get(name) for name in expected} == expected
    assert "HTTP_CONNECTION" not in environ


@pytest.mark.carries("wsgi", "request bodies part by part")
def test_a_body_is_read_in_parts(wrap):
    def app(environ, start_response):
        start_response("200 OK", [])
        return iter(lambda: environ["wsgi.input"].read(7), b"")

    body = bytes(range(256)) * 1000
    assert get(wrap(app, "@on_request_body\n@on_response_body\n"), "POST", body=body).body == body


@pytest.mark.parametrize("script", ['@on_request_headers\nsend_local_response 403 no "" "" -1\nreturn 1\n', ""])
def test_the_head_is_given_before_anything_is_returned(wrap, script):
    """Servers may look at it then, and not again (granian)."""
    environ: dict = {}
    setup_testing_defaults(environ)
    response = Response()
    parts = wrap(hello, script)(environ, response.start)
    assert response.status == ("403 Forbidden" if script else "200 Fine")
    assert b"".join(parts) == (b"" if script else b"Hello.")
    parts.close()


def test_a_client_that_leaves(wrap, log):
    closed = []

    class Parts:
        def __iter__(self):
            return iter([b"one", b"two"])

        def close(self):
            closed.append(True)

    def app(environ, start_response):
        start_response("200 OK", [])
        return Parts()

    environ: dict = {}
    setup_testing_defaults(environ)
    parts = wrap(app, "@on_response_headers\n" + ENDS)(environ, Response().start)
    assert next(parts) == b"one"
    parts.close()
    assert closed == [True]
    assert log.take() == ENDED


@pytest.mark.parametrize(
    "filter", ["@on_request_headers\n" + ENDS, "@on_request_body/eos\nreturn 0\n@on_request_body\nreturn 1\n" + ENDS]
)
def test_a_request_that_breaks_off_is_not_taken_for_whole(wrap, log, filter):
    """The server's input ends before CONTENT_LENGTH: a filter may even have removed what an application could tell it by."""
    read = []

    def app(environ, start_response):
        read.append(environ["wsgi.input"].read(3))
        read.append(environ["wsgi.input"].read())
        return hello(environ, start_response)

    response = get(wrap(app, filter), "POST", body=b"hel")
    assert (response.status, response.body) == ("200 Fine", b"Hello.")
    assert read == [b"hel", b""]
    read.clear()
    log.take()
    cut = get(wrap(app, filter), "POST", **{"wsgi.input": io.BytesIO(b"hel"), "CONTENT_LENGTH": "5"})
    assert (cut.status, cut.body) == ("400 Bad Request", b"")
    assert read in ([], [b"hel"])
    assert log.take() == ENDED


def test_a_response_to_a_request_that_breaks_off_is_cut(wrap):
    told = []

    def app(environ, start_response):
        start_response("200 OK", [])
        yield environ["wsgi.input"].read(3)
        try:
            environ["wsgi.input"].read()
        except OSError as error:
            told.append(error)
            raise

    response = Response()
    environ = {"REQUEST_METHOD": "POST", "wsgi.input": io.BytesIO(b"hel"), "CONTENT_LENGTH": "5"}
    setup_testing_defaults(environ)
    parts = wrap(app, "")(environ, response.start)
    assert (response.status, next(parts)) == ("200 OK", b"hel")
    with pytest.raises(StreamReset):
        next(parts)
    parts.close()
    assert [(type(error), isinstance(error, ProxyWasmError)) for error in told] == [(RequestCut, True)]


def test_a_length_without_end_is_none(wrap):
    """Of servers that do not look at it."""
    response = get(wrap(echo, ""), "POST", **{"wsgi.input": io.BytesIO(b"hel"), "CONTENT_LENGTH": "9" * 5000})
    assert (response.status, response.body) == ("200 OK", b"")


def test_an_application_that_thinks_again(wrap):
    """start_response may be called again with exc_info, as long as no body was sent."""

    def app(environ, start_response):
        start_response("200 OK", [])
        try:
            raise ValueError("late")
        except ValueError as error:
            start_response("500 Oops", [], (ValueError, error, None))
        return [b"error"]

    response = get(wrap(app, "@on_response_headers\n"))
    assert (response.status, response.body) == ("500 Oops", b"error")


def test_filters_that_do_not_load(wrap):
    with pytest.raises(PluginError):
        wrap(hello, Filter(code("rust/auth"))).start()


def test_many_threads_and_a_real_server(wrap):
    class Quiet(WSGIRequestHandler):
        def log_message(self, *args):
            pass

    app = wrap(validator(tell), Filter(code("rust/headers"), configuration="from Rust"))
    with ThreadPoolExecutor(8) as pool:
        assert {get(app).status for _ in pool.map(lambda _: get(app), range(200))} == {"200 OK"}
    with make_server("127.0.0.1", 0, app, handler_class=Quiet) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        with urllib.request.urlopen(f"http://127.0.0.1:{server.server_port}/a%20b?c=d") as response:
            environ = json.load(response)
            assert response.headers["x-wasm"] == "from Rust"
        server.shutdown()
        thread.join()
    assert (environ["PATH_INFO"], environ["QUERY_STRING"], environ["HTTP_X_WASM"]) == ("/a b", "c=d", "from Rust")


def test_requests_that_wait_for_a_filter_end_with_the_middleware(wrap, log):
    app = wrap(hello, "@on_request_headers\nsay waits\nreturn 1")
    with ThreadPoolExecutor(2) as pool:
        waiting = [pool.submit(get, app) for _ in range(2)]
        while log.messages.count("waits") < 2:
            pass
        app.close()
        assert [each.result(20).status for each in waiting] == ["503 Service Unavailable"] * 2


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
class TestForks:
    """While threads of the parent load filters, or are inside them."""

    @pytest.fixture(autouse=True)
    def _goes_on(self, engine):
        if not engine.capabilities.fork:
            pytest.skip("a host that was opened before a fork cannot be closed after it")

    def test_amid_the_start(self, wrap):
        app = wrap(hello, "@on_request_headers\nsay hello")
        reached, go_on = threading.Event(), threading.Event()
        make = app._make_host

        def slow():
            reached.set()
            assert go_on.wait(20)
            return make()

        def child():
            app._make_host = make
            assert get(app).body == b"Hello."
            app.close()

        app._make_host = slow
        thread = threading.Thread(target=get, args=(app,))
        thread.start()
        assert reached.wait(20)
        try:
            assert in_a_child(child) == 0
        finally:
            go_on.set()
            thread.join()

    def test_amid_a_request(self, wrap):
        app = wrap(hello, "@on_request_headers\nsay hello")
        driver = app.start()[0]

        def child():
            app.close()
            assert get(app).body == b"Hello."
            app.close()

        with held_by_another_thread(driver.lock):
            assert in_a_child(child) == 0
        assert get(app).body == b"Hello."
