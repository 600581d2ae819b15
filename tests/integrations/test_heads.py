"""What filters and applications make of heads, and what of it goes on, in both middlewares: whatever a server could not
send, or two readers could understand in two ways, is answered."""

from __future__ import annotations

import pytest

from proxywasm_host.integrations.headers import Refused, received_request
from proxywasm_host.integrations.heads import for_wire
from tests.integrations.middlewares import Application

LOCAL = "@on_request_headers\nsend_local_response {} details {} {} -1\nreturn 1\n"
NOTHING = [("content-length", "0")]


def replaces(phase: str, name: str, value: str) -> str:
    return f"@on_{phase}_headers\nreplace_header_map_value {0 if phase == 'request' else 2} {name} {value}\n"


# -- Responses ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [200, 299, 418, 500, 599])
def test_a_status_that_servers_know(carry, status):
    answer = carry(LOCAL.format(status, "body", "a=b")).get()
    assert (answer.status, answer["a"], answer["content-length"], answer.body) == (status, "b", "4", b"body")


@pytest.mark.parametrize("status", [0, 1, 99, 100, 101, 103, 199, 600, 999, 1000, 65535])
def test_a_status_of_a_filter_that_is_none(carry, status):
    answer = carry(LOCAL.format(status, "body", "a=b")).get()
    assert (answer.status, answer.headers, answer.body) == (503, NOTHING, b"")


@pytest.mark.parametrize("value", ["600", "099", "+200", "2e2", "0200", "20", "%C2%B2", "", "9" * 5000])
def test_a_status_that_a_filter_makes_of_the_applications(carry, value):
    served = carry(replaces("response", ":status", value or '""'))
    answer = served.get()
    assert answer.status in (502, 503)
    assert answer.body in (b"", b"missing required header: :status")


@pytest.mark.parametrize("status", [99, 103, 600, 999])
def test_a_status_of_an_application_that_is_none(carry, status):
    answer = carry(application=Application(status)).get()
    assert (answer.status, answer.headers, answer.body) == (503, NOTHING, b"")


@pytest.mark.parametrize("status", [204, 304])
@pytest.mark.parametrize("who", ["filter", "application"])
def test_a_response_that_has_no_body(carry, status, who):
    """Nor a length (RFC 9110, 8.6: none in 204; that of 304 would be another response's)."""
    application = Application(status, [("content-length", "4"), ("etag", "x")], (b"body",))
    served = carry(LOCAL.format(status, "body", "etag=x") if who == "filter" else "", application=application)
    first, second = served.answers({}, {})
    assert (first.status, first["content-length"], first["etag"], first.body) == (status, None, "x", b"")
    assert second == first


@pytest.mark.parametrize("byte", ["%00", "%01", "%08", "%0a", "%0b", "%0d", "%1f", "%7f"])
def test_a_value_that_http_has_no_place_for(carry, byte):
    answer = carry(f"@on_response_headers\nadd_header_map_value 2 x-echo a{byte}b\n").get()
    assert (answer.status, answer.headers, answer.body) == (503, NOTHING, b"")


@pytest.mark.parametrize(
    ("value", "sent"), [("a%09b", "a\tb"), ("%e4", "ä"), ("%20%09a%20", "a"), ("a%0a", "a"), ("a%0d%0a", "a")]
)
def test_a_value_that_it_has(carry, value, sent):
    answer = carry(f"@on_response_headers\nadd_header_map_value 2 x-echo {value}\n").get()
    assert (answer.status, answer["x-echo"]) == (200, sent)


@pytest.mark.parametrize(
    ("came", "goes"),
    [("5", "6"), ("999", "6"), ("0", "6"), ("abc", "6"), ("-1", "6"), ("+6", "6"), ("6,6", "6"), ("6", "6"), ("9" * 40, "6")],
)  # fmt: skip
def test_a_content_length_that_a_filter_made_wrong(carry, came, goes):
    answer = carry(replaces("response", "content-length", came)).get()
    assert (answer.status, answer["content-length"], answer.body) == (200, goes, b"Hello.")


@pytest.mark.parametrize("came", ["abc", "-1", "6, 6", "²"])
def test_a_content_length_of_an_application_that_is_none(carry, came):
    application = Application(headers=[("content-length", came)])
    answer = carry(application=application, fix_content_length=False).get()
    assert (answer.status, answer["content-length"], answer.body) == (200, None, b"Hello.")


def test_a_content_length_of_nothing(carry):
    """A filter lets the application be asked by HEAD, whose answers say how long they would be."""
    served = carry(replaces("request", ":method", "HEAD"), application=Application(headers=[("content-length", "6")]))
    served.application.chunks = ()
    answer = served.get()
    assert (served.application.seen[0].method, answer["content-length"], answer.body) == ("HEAD", "0", b"")
    assert served.get("HEAD")["content-length"] == "6"


def test_a_client_of_http_1_0_is_told_the_length(carry):
    """It knows no chunks: where a filter leaves the length open, its response waits for the whole body."""
    application = Application(headers=[("content-length", "11")], chunks=(b"Hello, ", b"you."))
    script = "@on_response_body/1\nset_buffer_bytes 1 0 100 HELLO,%20\n"
    old = carry(script, application=application)
    if old.kind == "asgi":  # servers of WSGI close the connection by themselves
        assert old.get(http_version="1.0")["content-length"] == "11"
        assert old.get(http_version="1.1")["content-length"] is None
    assert old.get(http_version="1.0").body == b"HELLO, you."


def test_what_an_application_says_of_its_connection_stays_there(carry):
    headers = [
        ("connection", "close, x-hop"),
        ("x-hop", "1"),
        ("keep-alive", "5"),
        ("x-end", "1"),
        ("content-length", "6"),
    ]
    answer = carry("@on_response_headers\nget_header_map_pairs 2\n", application=Application(headers=headers)).get()
    assert dict(answer.headers) == {"x-end": "1", "content-length": "6"}


def test_whitespace_around_an_applications_value_is_no_part_of_it(carry, log):
    served = carry(
        "@on_response_headers\nget_header_map_value 2 x-a\n", application=Application(headers=[("x-a", " v\t")])
    )
    assert served.get()["x-a"] == "v"
    assert log.take() == ['get_header_map_value(2, x-a) = 0 "v"']


# -- Requests ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "target", "authority", "path"),
    [
        ("GET", "http://other.example/p?q", "other.example", "/p?q"),
        ("GET", "http://other.example:8080", "other.example:8080", "/"),
        ("GET", "https://[::1]:1?q=/", "[::1]:1", "/?q=/"),
        ("GET", "/x?", "example.com", "/x?"),
        ("GET", "//other.example/p", "example.com", "//other.example/p"),
        ("OPTIONS", "*", "example.com", "*"),
    ],
)
def test_where_a_request_goes_to(carry, log, method, target, authority, path):
    """The authority of an absolute target counts, and not Host (RFC 9112, 3.2.2)."""
    script = "@on_request_headers\nget_header_map_value 0 :authority\nget_header_map_value 0 :path\n"
    served = carry(script)
    more = {"raw_path": target.encode()} if served.kind == "asgi" else {}
    assert served.get(method, target, **more).status == 200
    assert [line.partition(" = ")[2] for line in log.take()] == [f'0 "{authority}"', f'0 "{path}"']
    [seen] = served.application.seen
    assert (seen.headers["host"], seen.path) == (authority, path.partition("?")[0])


REFUSED = [
    ("GET", "*", {}, 400),
    ("GET", "x", {}, 400),
    ("GET", "/x#y", {}, 400),
    ("GET", "http://other.example/x#y", {}, 400),
    ("GET", "http:///x", {}, 400),
    ("GET", "http://user@other.example/", {}, 400),
    ("CONNECT", "example.com:443", {}, 501),
    ("GET", "/", {"host": "a b"}, 400),
    ("GET", "/", {"host": "a/b"}, 400),
    ("GET", "/", {"host": "a,b"}, 400),
    ("GET", "/", {"host": "a:b"}, 400),
    ("GET", "/", {"host": "[::1"}, 400),
    ("POST", "/", {"transfer-encoding": "gzip, chunked"}, 501),
    ("POST", "/", {"transfer-encoding": "identity"}, 501),
    ("POST", "/", {"transfer-encoding": "chunked", "content-length": "4"}, 400),
    ("POST", "/", {"content-length": "4", "transfer-encoding": "Chunked"}, 400),
]


@pytest.mark.parametrize(("method", "target", "headers", "status"), REFUSED)
def test_a_request_that_could_be_understood_in_two_ways(carry, log, method, target, headers, status):
    """No filter is shown it, nor the application."""
    served = carry("@on_context_create\nsay seen\n@on_request_headers\nsay seen\n")
    more = {"raw_path": target.encode()} if served.kind == "asgi" else {}
    assert served.get().status == 200
    log.take()
    assert served.get(method, target, headers.items(), **more).status == status
    assert log.take() == []
    assert len(served.application.seen) == 1


def test_a_client_cannot_take_the_length_away(carry):
    served = carry("@on_request_headers\n")
    assert served.get("POST", "/", [("connection", "content-length, x-a"), ("x-a", "1")], body=b"hello").status == 200
    [seen] = served.application.seen
    assert (seen.headers.get("content-length"), seen.headers.get("x-a"), seen.body) == ("5", None, b"hello")


def test_two_hosts(carry):
    assert carry().get(headers=[("host", "a.example"), ("host", "b.example")]).status == 400


@pytest.mark.parametrize(
    ("name", "value"),
    [
        (":path", "x"), (":path", "http://other/"), (":path", '""'), (":path", "*"), (":path", "/a%01"), (":path", "/a%20b"), (":path", "/a%23b"),
        (":method", "G%20ET"), (":method", "GET/"), (":method", '""'), ("x-a", "a%01b"), ("x-a", "a%0ab"),
    ],
)  # fmt: skip
def test_what_a_filter_makes_of_a_request_and_http_has_no_form_for(carry, name, value, caplog):
    served = carry(replaces("request", name, value))
    assert served.get().status == 503
    assert served.application.seen == []
    assert [name in line for line in unsendable(caplog, "request")] == [True]


@pytest.mark.parametrize(("path", "query"), [("/x", ""), ("/x?", ""), ("/x?a=b", "a=b"), ("//x", ""), ("/%2541", "")])
def test_a_target_that_a_filter_makes(carry, path, query):
    served = carry(replaces("request", ":path", path))
    assert served.get(target="/before?c=d").status == 200
    [seen] = served.application.seen
    assert (seen.path, seen.query) == (path.partition("?")[0].replace("%2541", "A"), query)


def unsendable(caplog, what):
    """What the log says of it, each in one line."""
    said = f"answered 503: the {what} that came out of the filters cannot be sent: "
    lines = [record.getMessage() for record in caplog.records if record.getMessage().startswith(said)]
    assert not any("\n" in line or len(line) > 2000 for line in lines)
    return lines


def test_a_response_that_cannot_be_sent_is_told_in_the_log(carry, caplog):
    served = carry(replaces("response", "x-a", "fill:a%0ab:100000"))
    assert served.get().status == 503
    assert ["x-a" in line for line in unsendable(caplog, "response")] == [True]


def test_values_of_a_client_that_are_none(carry, caplog):
    """They are the client's business, and no lines of our log."""
    served = carry()
    assert served.get(headers=[("x-a", "a\x01b")]).status == 400
    assert served.application.seen == []
    assert unsendable(caplog, "request") == []


def test_whitespace_around_a_clients_value_is_no_part_of_it(carry, log):
    served = carry("@on_request_headers\nget_header_map_value 0 authorization\n")
    served.get(headers=[("authorization", " Bearer t \t")])
    assert log.take() == ['get_header_map_value(0, authorization) = 0 "Bearer t"']
    assert served.application.seen[0].headers["authorization"] == "Bearer t"


def test_what_a_filter_says_of_the_connection_to_the_application_is_left_out(carry):
    adds = ("connection x-hop", "x-hop 1", "upgrade h2c", "transfer-encoding gzip", "keep-alive 5", "x-end 1")
    served = carry("@on_request_headers\n" + "".join(f"add_header_map_value 0 {each}\n" for each in adds))
    assert served.get("POST", body=b"body").status == 200
    [seen] = served.application.seen
    assert (seen.headers, seen.body) == ({"host": "example.com", "content-length": "4", "x-end": "1"}, b"body")


def test_a_line_end_around_a_filters_value_is_no_part_of_it(carry):
    """Its configuration was a file's."""
    served = carry("@on_request_headers\nadd_header_map_value 0 x-a a%0a\nadd_header_map_value 0 x-b %0a\n")
    assert served.get().status == 200
    headers = served.application.seen[0].headers
    assert (headers["x-a"], headers["x-b"]) == ("a", "")


@pytest.mark.parametrize("length", ["abc", "999", "-1", "4"])
def test_a_requests_content_length_that_a_filter_made_wrong(carry, length):
    served = carry(replaces("request", "content-length", length))
    assert served.get("POST", body=b"body").status == 200
    [seen] = served.application.seen
    assert (seen.headers["content-length"], seen.body) == ("4", b"body")


def test_a_requests_content_length_of_nothing(carry):
    served = carry(replaces("request", "content-length", "5"))
    served.get()
    assert served.application.seen[0].headers["content-length"] == "0"


# -- The functions alone -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("named", [b"x-hop", b"close, X-Hop ", b"x-hop,x-other"])
def test_headers_that_connection_names_are_of_one_connection(named):
    pairs = [(b"connection", named), (b"x-hop", b"1"), (b"x-end", b"1")]
    assert received_request(pairs, b"GET", b"/", b"http", b"s")[0][4:] == [(b"x-end", b"1")]
    assert for_wire([(b":status", b"200"), *pairs]) == [(b"x-end", b"1")]


@pytest.mark.parametrize(
    "host", [b"a", b"a.example:80", b"a:", b"", b"[::1]", b"[::1]:80", b"[fe80::1%25eth0]", b"a_b", b"xn--a", b"%C3%A4"]
)
def test_hosts(host):
    assert received_request([(b"host", host)], b"GET", b"/", b"http", b"s")[0][0] == (b":authority", host)


@pytest.mark.parametrize(
    "host", [b"a b", b"a/", b"a@b", b"a?", b"a#", b"\xe4", b"a:80:80", b"a\x00", b"[a", b'"a"', b"a\\b"]
)
def test_what_is_no_host(host):
    with pytest.raises(Refused, match="an invalid Host") as refused:
        received_request([(b"host", host)], b"GET", b"/", b"http", b"s")
    assert refused.value.status == 400
