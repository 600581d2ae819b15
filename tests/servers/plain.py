"""One application, as ASGI and WSGI, behind a filter that does what a request's headers say; for tests of what is on the
wire. It runs in a process of its own: ``ENGINE`` names the engine.
"""

from __future__ import annotations

import os
from pathlib import Path
from urllib.parse import parse_qsl

from proxywasm_host import Limits
from proxywasm_host.integrations import asgi as of_asgi
from proxywasm_host.integrations import wsgi as of_wsgi

BODY = b"from the application"
SCRIPT = """@on_request_headers
get_header_map_value 0 x-loop
if_status 0
loop
get_header_map_value 0 x-403
if_status 0
send_local_response 403 details forbidden x-from=filter -1
get_header_map_value 0 x-204
if_status 0
send_local_response 204 details body x-from=filter -1
get_header_map_value 0 x-304
if_status 0
send_local_response 304 details body x-from=filter -1
get_header_map_value 0 x-600
if_status 0
send_local_response 600 details body x-from=filter -1
get_header_map_value 0 x-empty
if_status 0
send_local_response 401 details "" "" -1
@on_response_headers
get_header_map_value 2 x-control
if_status 0
add_header_map_value 2 x-echo a%01b
get_header_map_value 2 x-length
if_status 0
replace_header_map_value 2 content-length abc
get_header_map_value 2 x-name
if_status 0
add_header_map_value 2 a%20b 1
"""
FILTERS = [
    of_asgi.Filter(Path(__file__).parent.parent / "filters" / "c" / "probe_0_2_1.wasm", "probe", configuration=SCRIPT)
]


async def application(scope, receive, send) -> None:
    """Answers with what the query says as headers."""
    assert scope["type"] == "http", "no lifespan here"
    given = [(b"content-length", b"%d" % len(BODY)), *parse_qsl(scope["query_string"])]
    await send({"type": "http.response.start", "status": 200, "headers": given})
    await send({"type": "http.response.body", "body": BODY})


def wsgi_application(environ, start_response):
    start_response("200 OK", [("Content-Length", str(len(BODY))), *parse_qsl(environ["QUERY_STRING"])])
    return [BODY]


options = {"engine": os.environ["ENGINE"], "limits": Limits(deadline=0.5)}
asgi = of_asgi.ProxyWasmMiddleware(application, FILTERS, **options)
wsgi = of_wsgi.ProxyWasmMiddleware(wsgi_application, FILTERS, **options)

if __name__ == "__main__":
    import sys
    from socketserver import ThreadingMixIn
    from wsgiref.simple_server import WSGIServer, make_server

    class Threads(ThreadingMixIn, WSGIServer):
        daemon_threads = True

    server, port = sys.argv[1:]
    if server == "wsgiref":
        with make_server("127.0.0.1", int(port), wsgi, Threads) as threads:
            threads.serve_forever()
    else:
        from werkzeug.serving import WSGIRequestHandler, run_simple

        WSGIRequestHandler.protocol_version = "HTTP/1.1"
        run_simple("127.0.0.1", int(port), wsgi, threaded=True)
