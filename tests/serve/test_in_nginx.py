"""The same servers and locations in a real nginx and in ``serve``: which takes a request, and what upstream gets.

Debian's nginx has no ngx_wasm_module, so it gets the file without the directives for filters.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import time
from pathlib import Path

import httpx2
import pytest

from proxywasm_host.serve.source import read_configuration
from tests.serve import origin as origins
from tests.serve.in_process import beside
from tests.serve.ports import closed_port
from tests.support import FILTERS

CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
NGINX = CACHE / "proxywasm-host/nginx/usr/sbin/nginx"
"""`make` unpacks it."""
CONFIGURATION = """
events {}
wasm { module headers FILTERS/rust/headers.wasm; }
http {
    access_log off;
    proxy_wasm headers "from nginx";
    upstream app { server 127.0.0.1:ORIGIN; }
    server {
        listen 127.0.0.1:LISTEN;
        server_name .b.example;
        location / { proxy_pass http://app; proxy_set_header Host suffix.example; }
    }
    server {
        listen 127.0.0.1:LISTEN;
        server_name only.b.example;
        proxy_set_header Host $http_host;
        location /here { proxy_pass http://app; }
        location /lost { proxy_pass http://app; proxy_set_header X-Any 1; }
    }
    server {
        listen 127.0.0.1:LISTEN default_server;
        server_name a.example;
        location = /exact { proxy_pass http://app/is/exact; }
        location ^~ /static/ { proxy_pass http://app; proxy_set_header Host static.example; }
        location /plain { proxy_pass http://app; proxy_set_header Host plain.example; }
        location /plain/longer { proxy_pass http://app; }
        location ~ \\.php$ { proxy_pass http://app; proxy_set_header Host php.example; }
        location ~ ^/v[0-9]+/ { proxy_pass http://app; proxy_set_header Host version.example; }
        location ~* \\.JPG$ { proxy_pass http://app; proxy_set_header Host picture.example; }
        location /api/ { proxy_pass http://app/v1/; proxy_set_header Host $http_host; }
        location /whole { proxy_pass http://app/new; }
        location /cut { proxy_pass http://app/; }
        location /port/ { proxy_pass http://127.0.0.1:ORIGIN/; }
    }
}
"""
REQUESTS = [
    ("", "/exact?a=b"),
    ("", "/exact/more"),
    ("", "/static/a.php"),
    ("", "/plain"),
    ("", "/plain/long"),
    ("", "/plain/longer/x"),
    ("", "/plain/longer/x.php"),
    ("", "/plainly"),
    ("", "/x.php?y=.jpg"),
    ("", "/x.php.txt"),
    ("", "/v12/x.php"),
    ("", "/v12/x"),
    ("", "/in/v12/x"),
    ("", "/a.jpg"),
    ("", "/a.JpG"),
    ("", "/api/x/y?z=%20"),
    ("", "/whole"),
    ("", "/wholesome?q"),
    ("", "/cut"),
    ("", "/cut/x?y"),
    ("", "/cuts"),
    ("", "/port/x"),
    ("", "/nothing"),
    ("a.example", "/exact"),
    ("A.Example:81", "/exact"),
    ("other.example", "/exact"),
    ("b.example", "/exact"),
    ("x.y.b.example", "/any"),
    ("xb.example", "/whole"),
    ("only.b.example", "/here/x"),
    ("only.b.example:81", "/here"),
    ("only.b.example", "/lost"),
    ("only.b.example", "/exact"),
]


@pytest.fixture(scope="module")
def upstream():
    with origins.running() as origin:
        yield origin


@pytest.fixture(scope="module")
def text(upstream):
    return CONFIGURATION.replace("FILTERS", str(FILTERS)).replace("ORIGIN", str(upstream.port))


@pytest.fixture(scope="module")
def nginx(text, tmp_path_factory):
    """The address of a real one."""
    place, port = tmp_path_factory.mktemp("nginx"), closed_port()
    own = ["daemon off;", "pid nginx.pid;", "error_log stderr;"]
    folders = [f"{name}_temp_path {name};" for name in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")]
    plain = re.sub(r"wasm \{.*\}\n|proxy_wasm .*;\n", "", text).replace(
        "http {", "http { root /nonexistent; " + " ".join(folders)
    )
    (place / "nginx.conf").write_text("\n".join(own) + plain.replace("LISTEN", str(port)))
    command = [NGINX, "-p", place, "-c", "nginx.conf", "-e", "stderr"]
    with (place / "errors").open("wb") as errors:
        process = subprocess.Popen(command, stderr=errors)
    until = time.monotonic() + 60
    while True:
        try:
            httpx2.get(f"http://127.0.0.1:{port}/nothing")
            break
        except httpx2.ConnectError:
            assert process.poll() is None, (place / "errors").read_text()
            assert time.monotonic() < until, (place / "errors").read_text()
            time.sleep(0.02)
    yield f"http://127.0.0.1:{port}"
    process.terminate()
    process.wait(60)


@pytest.fixture(scope="module")
def ours(text, tmp_path_factory):
    file = tmp_path_factory.mktemp("ours") / "nginx.conf"
    file.write_text(text.replace("LISTEN", "1"))
    own, *_ = read_configuration(file)
    with beside({key: value for key, value in own.items() if key != "listen"}) as served:
        yield f"http://127.0.0.1:{served.port}"


@pytest.mark.parametrize(("host", "path"), REQUESTS)
def test_a_request(nginx, ours, upstream, host, path):
    def told(url: str) -> tuple:
        answer = httpx2.get(url + path, headers={"host": host} if host else {}, timeout=60)
        if answer.status_code != 200:
            return (answer.status_code,)
        seen = json.loads(answer.content)
        address = url.removeprefix("http://")
        sent = {name.lower(): value for name, value in seen["headers"]}
        return seen["target"], sent["host"].replace(address, "as asked")

    assert told(ours) == told(nginx)


def test_a_slash_that_is_missing_is_no_redirect_here(nginx, ours):
    """As docs/configuration.md says."""
    assert [httpx2.get(f"{url}/api").status_code for url in (nginx, ours)] == [301, 404]


def test_the_filters_run(ours):
    assert dict(httpx2.get(f"{ours}/plain").json()["headers"])["x-wasm"] == "from nginx"
