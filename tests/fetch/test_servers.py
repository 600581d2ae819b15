"""Modules from HTTP servers and registries: TLS, credentials, redirects, and the limits that servers are held to."""

from __future__ import annotations

import base64
import json
import os
import socket
import ssl
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

import pytest

from proxywasm_host.errors import FetchError
from proxywasm_host.fetch.credentials import find_credentials
from proxywasm_host.fetch.fetcher import ModuleFetcher
from proxywasm_host.fetch.reference import name_of, reference_of
from tests.fetch.conftest import certificate
from tests.fetch.registry import digest, running
from tests.support import code

MODULE = code("rust/headers")
ROBOT = "robot:$2b$05$abcdefghijklmnopqrstuuOQiyCxlgf/oeuTqixKmWdcYUh4Hjl0a"
"""User and bcrypt's hash of the password ``secret``, as htpasswd writes it."""


class Files(BaseHTTPRequestHandler):
    """Answers by path."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self.server.seen.append((self.path, self.headers.get("authorization")))  # type: ignore[attr-defined]
        getattr(self, urlsplit(self.path).path.strip("/").partition(".")[0], self.missing)()

    def answer(self, status: int, body: bytes = b"", **headers: str) -> None:
        self.send_response_only(status)
        for name, value in {"Content_Length": str(len(body)), **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def missing(self) -> None:
        self.answer(404)

    def module(self) -> None:
        same = self.headers.get("if-none-match") == '"one"'
        self.answer(304, ETag='"one"') if same else self.answer(200, MODULE, ETag='"one"')

    def broken(self) -> None:
        self.answer(503)

    def loop(self) -> None:
        self.answer(302, Location="/loop")

    def once(self) -> None:
        self.answer(302, Location="/module.wasm")

    def away(self) -> None:
        self.answer(307, Location=parse_qs(urlsplit(self.path).query)["to"][0])

    def zipped(self) -> None:
        self.answer(200, b"x", Content_Encoding="gzip")

    def endless(self) -> None:
        self.send_response_only(200)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        try:
            while True:
                self.wfile.write(b"1000\r\n" + b"x" * 4096 + b"\r\n")
        except OSError:
            self.close_connection = True

    def drips(self) -> None:
        """A header that never ends, a byte at a time."""
        self.wfile.write(b"HTTP/1.1 200 OK\r\nX: ")
        try:
            while not self.server.over.wait(0.05):  # type: ignore[attr-defined]
                self.wfile.write(b"x")
                self.wfile.flush()
        except OSError:
            pass
        self.close_connection = True

    def log_message(self, *args: object) -> None:
        pass


class Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request, client_address) -> None:
        """Clients that do not want what comes end the connection."""


@pytest.fixture
def files(request):
    """``files(tls=None)``: a server with its ``url``, and what it has ``seen``."""
    started = []

    def start(tls=None):
        server = Server(("127.0.0.1", 0), Files)
        if tls:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(*tls)
            server.socket = context.wrap_socket(server.socket, server_side=True)
        server.seen, server.over = [], threading.Event()
        server.url = f"{'https' if tls else 'http'}://localhost:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        started.append((server, thread))
        return server

    yield start
    for server, thread in started:
        server.over.set()
        server.shutdown()
        thread.join()
        server.server_close()


# -- HTTP servers ------------------------------------------------------------------------------------------------------

WITH_HTTPX = """
import importlib.util, sys
find = importlib.util.find_spec
importlib.util.find_spec = lambda name, *rest: None if name == "httpx2" else find(name, *rest)
from proxywasm_host.fetch.fetcher import ModuleFetcher
module = ModuleFetcher(sys.argv[2]).read(sys.argv[1] + "/once")
print("httpx2" in sys.modules, len(module))
"""


def test_where_only_httpx_is_installed_it_fetches(files, tmp_path):
    """As beside mitmproxy 11."""
    command = [sys.executable, "-c", WITH_HTTPX, files().url, str(tmp_path)]
    said = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120).stdout
    assert said == f"False {len(MODULE)}\n"



def test_a_module_from_a_server_is_fetched_once_or_when_it_has_changed(files, fetcher):
    server, used = files(), fetcher()
    url = f"{server.url}/module.wasm?signature=1"
    assert used.pin(url) == digest(MODULE)
    used.loaded(url, digest(MODULE))
    assert used.read(url) == used.read(url, policy="Always") == fetcher().read(url) == MODULE
    assert len(server.seen) == 2  # the second by policy, answered 304
    assert fetcher().read(f"{server.url}/once", sha256=digest(MODULE)) == MODULE
    assert len(server.seen) == 2  # a digest that is here is not asked for
    with pytest.raises(FetchError, match=f"the module has {digest(MODULE)}, but is pinned to sha256:11"):
        fetcher().read(url, sha256="1" * 64)


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("/missing.wasm", "answered 404"),
        ("/broken", "answered 503"),
        ("/loop", "redirects more than 5 times"),
        ("/away?to=ftp://example.com/", "is not a URL of an HTTP server"),
        ("/away?to=http://192.0.2.1/x", "used without TLS"),
        ("/away?to=http://x:y/", "not a URL"),
        ("/zipped", "encodes its answer"),
        ("/endless", "sends more than 1048576 bytes"),
    ],
)
def test_a_server_that_does_not_give_a_module(files, fetcher, path, said):
    with pytest.raises(FetchError, match=said):
        fetcher().read(files().url + path, most=1 << 20)


def test_a_server_that_takes_its_time_has_only_so_much(files, fetcher):
    with pytest.raises(FetchError, match=r"not fetched within 0\.5 seconds"):
        fetcher(timeout=0.5).read(files().url + "/drips")


def test_a_resolver_that_takes_its_time_has_only_so_much(fetcher, monkeypatch):
    """It cannot be cancelled."""
    from proxywasm_host.fetch import session

    monkeypatch.setattr(session, "GRACE", 0.1)
    over = threading.Event()
    resolve = socket.getaddrinfo

    def slow(name, *rest, **more):
        assert name not in ("far.example", b"far.example") or over.wait(20)
        return resolve("127.0.0.1", *rest, **more)

    monkeypatch.setattr(socket, "getaddrinfo", slow)
    with pytest.raises(FetchError, match=r"not fetched within 0\.2 seconds"):
        fetcher(timeout=0.2).read("https://far.example/module.wasm")
    assert not over.is_set()
    over.set()
    for thread in threading.enumerate():
        if thread.name == "proxywasm-fetch":
            thread.join()


def test_a_redirect_takes_no_credentials_along_and_never_leaves_tls(files, fetcher, tmp_path):
    from proxywasm_host.fetch.session import Session, run

    tls = certificate(tmp_path / "tls")
    secure, plain, other = files(tls), files(), files(tls)
    with pytest.raises(FetchError, match="without TLS"):
        fetcher(ca=tls[0]).read(f"{secure.url}/away?to={plain.url}/module.wasm")

    async def with_credentials():
        async with Session(str(tls[0]), frozenset()) as session:
            url = f"{secure.url}/away?to={other.url}/module.wasm"
            return await session.send("GET", url, {"authorization": "Basic secret"})

    assert run(with_credentials, 10).body == MODULE
    assert [seen[1] for seen in secure.seen[-1:] + other.seen] == ["Basic secret", None]


def test_tls_is_checked_against_the_authorities_that_are_given(files, fetcher, tmp_path):
    ours, theirs = certificate(tmp_path / "ours"), certificate(tmp_path / "theirs")
    server = files(theirs)
    assert fetcher(ca=theirs[0]).read(f"{server.url}/module.wasm") == MODULE
    for options in ({}, {"ca": ours[0]}):
        with pytest.raises(FetchError, match="CERTIFICATE_VERIFY_FAILED"):
            fetcher(**options).read(f"{server.url}/module.wasm", policy="Always")
    with pytest.raises(FetchError, match="cannot read the authorities in /no/such/file"):
        fetcher(ca="/no/such/file").read(f"{server.url}/module.wasm", policy="Always")


def test_plain_http_is_for_this_machine_or_said(files, fetcher):
    server = files()
    name = socket.gethostname()
    with pytest.raises(FetchError, match=f"{name}:1 is used without TLS.*name the host in plain_http"):
        fetcher().read(f"http://{name}:1/module.wasm")
    with pytest.raises(FetchError, match=rf"{name}:1: "):  # it is asked, and nobody is there
        fetcher(plain_http=[f"{name}:1"]).read(f"http://{name}:1/module.wasm")
    with pytest.raises(TypeError, match=r"write \['localhost'\], a list"):
        ModuleFetcher(plain_http="localhost")
    assert fetcher().read(f"http://127.0.0.1:{server.server_port}/module.wasm") == MODULE


def test_whoever_fetches_may_be_in_an_event_loop(files, fetcher):
    import anyio

    async def main():
        return fetcher().read(files().url + "/module.wasm")

    assert anyio.run(main) == MODULE


# -- Registries that want to know who asks -----------------------------------------------------------------------------


@pytest.fixture
def guarded(tmp_path):
    """A registry with TLS for a robot with a password, an image in it, and its authority."""
    users = tmp_path / "users"
    users.write_text(ROBOT + "\n")
    tls = certificate(tmp_path / "tls")
    with running(tmp_path / "guarded", tls=tls, users=users) as registry:
        registry.auth = ("robot", "secret")
        registry.push_wasm("team/filter", "1", MODULE)
        registry.ca = tls[0]
        yield registry


def config(tmp_path, **sections):
    file = tmp_path / "docker" / "config.json"
    file.parent.mkdir(exist_ok=True)
    file.write_text(json.dumps(sections))
    return file


def basic(user: str, password: str) -> str:
    return base64.b64encode(f"{user}:{password}".encode()).decode()


def test_a_private_image_with_credentials_of_docker(guarded, fetcher, tmp_path):
    image, host = f"oci://{guarded.host}/team/filter:1", guarded.host
    for number, auths in enumerate(
        (
            {host: {"auth": basic("robot", "secret")}},
            {f"https://{host}/v1/": {"username": "robot", "password": "secret"}},
            {host: {"auth": basic("robot", "wrong")}, f"{host}/team": {"auth": basic("robot", "secret")}},
        )
    ):
        used = fetcher(ca=guarded.ca, docker_config=config(tmp_path, auths=auths), directory=tmp_path / str(number))
        assert used.read(image) == MODULE
    for auths, said in (
        ({}, "no credentials for it"),
        ({host: {}}, "no credentials for it"),
        ({host: {"auth": basic("robot", "wrong")}}, "the credentials for it"),
    ):
        used = fetcher(ca=guarded.ca, docker_config=config(tmp_path, auths=auths))
        with pytest.raises(FetchError, match=f"{host} answered 401, with {said} .*docker login {host}"):
            used.read(image)
    with pytest.raises(FetchError, match=r"auths\..*\.auth is not the Base64 form of user:password"):
        fetcher(ca=guarded.ca, docker_config=config(tmp_path, auths={host: {"auth": "?"}})).read(image)


def test_a_private_image_with_a_credential_helper(guarded, fetcher, tmp_path, monkeypatch, caplog):
    image, host = f"oci://{guarded.host}/team/filter:1", guarded.host
    programs = tmp_path / "bin"
    programs.mkdir()
    helper = programs / "docker-credential-vault"
    helper.write_text(
        "#!/bin/sh\n"
        f'read host; [ "$1 $host" = "get {host}" ] || {{ echo "credentials not found in native keychain"; exit 1; }}\n'
        'echo \'{"ServerURL": "x", "Username": "robot", "Secret": "secret"}\'\n'
    )
    helper.chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
    for sections in ({"credHelpers": {host: "vault"}}, {"credsStore": "vault"}):
        used = fetcher(ca=guarded.ca, docker_config=config(tmp_path, **sections), directory=None)
        assert used.read(image) == MODULE
    assert find_credentials(config(tmp_path, credsStore="vault"), "other.example", "x") is None
    absent = config(tmp_path, credsStore="absent", auths={host: {"auth": basic("robot", "secret")}})
    assert fetcher(ca=guarded.ca, docker_config=absent).read(image) == MODULE
    assert "docker-credential-absent is not installed" in caplog.text
    helper.write_text("#!/bin/sh\necho locked; exit 1\n")
    with pytest.raises(FetchError, match=r"docker-credential-vault failed for x\.example: locked"):
        find_credentials(config(tmp_path, credsStore="vault"), "x.example", "y")
    with pytest.raises(FetchError, match="not the name of a credential helper"):
        find_credentials(config(tmp_path, credsStore="../evil"), "x.example", "y")


class Tokens(Files):
    """A token service, as Docker's, for a registry in front of which it stands: one server is both here."""

    def do_GET(self) -> None:
        self.server.seen.append((self.path, self.headers.get("authorization")))  # type: ignore[attr-defined]
        path = urlsplit(self.path).path
        if path == "/token":
            who = self.headers.get("authorization", "")
            good = who in ("", f"Basic {basic('robot', 'secret')}")
            body = json.dumps({"token": f"for {who or 'anybody'}"}).encode()
            return self.answer(200, body) if good else self.answer(401)
        if not self.headers.get("authorization", "").startswith("Bearer for "):
            where = f'Bearer realm="{self.server.url}/token",service="here",scope="repository:filter:pull,push"'
            return self.answer(401, WWW_Authenticate=where)
        manifest = json.dumps(
            {"layers": [{"mediaType": "application/wasm", "digest": digest(MODULE), "size": len(MODULE)}]}
        ).encode()
        return self.answer(200, manifest if "manifests" in path else MODULE)

    do_HEAD = do_GET

    def do_POST(self) -> None:
        form = self.rfile.read(int(self.headers["content-length"])).decode()
        self.server.seen.append((self.path, form))  # type: ignore[attr-defined]
        self.answer(200, json.dumps({"access_token": "for a refresh token"}).encode())


@pytest.mark.parametrize(
    ("entry", "token"),
    [
        ({}, "for anybody"),
        ({"auth": basic("robot", "secret")}, f"for Basic {basic('robot', 'secret')}"),
        ({"identitytoken": "refresh"}, "for a refresh token"),
        ({"registrytoken": "for me"}, "for me"),
    ],
)
def test_a_registry_with_a_token_service(files, fetcher, tmp_path, entry, token):
    server = files()
    server.RequestHandlerClass = Tokens
    host = f"localhost:{server.server_port}"
    used = fetcher(docker_config=config(tmp_path, auths={host: entry}))
    assert used.read(f"oci://{host}/filter:1") == MODULE
    assert server.seen[-1] == (f"/v2/filter/blobs/{digest(MODULE)}", f"Bearer {token}")
    asked = [what for path, what in server.seen if path.startswith("/token")]
    if entry.get("identitytoken"):
        assert parse_qs(asked[0]) == {
            "grant_type": ["refresh_token"],
            "client_id": ["proxywasm-host"],
            "service": ["here"],
            "scope": ["repository:filter:pull,push"],
            "refresh_token": ["refresh"],
        }
    elif not entry.get("registrytoken"):
        [path] = [path for path, _ in server.seen if path.startswith("/token")]
        assert parse_qs(urlsplit(path).query) == {"service": ["here"], "scope": ["repository:filter:pull,push"]}


def test_a_token_service_that_refuses(files, fetcher, tmp_path):
    server = files()
    server.RequestHandlerClass = Tokens
    host = f"localhost:{server.server_port}"
    with pytest.raises(FetchError, match=f"{host} gave no token .status 401.: docker login {host}"):
        fetcher(docker_config=config(tmp_path, auths={host: {"auth": basic("robot", "no")}})).read(
            f"oci://{host}/filter"
        )


def test_a_registry_that_is_killed_in_the_midst_is_told_as_such(files, fetcher):
    server = files()
    server.RequestHandlerClass = type("Dies", (Tokens,), {"answer": lambda self, *_, **__: self.connection.shutdown(2)})
    before = time.monotonic()
    with pytest.raises(FetchError, match=f"localhost:{server.server_port}: "):
        fetcher().read(f"oci://localhost:{server.server_port}/filter")
    assert time.monotonic() - before < 30


# -- What can be written -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "host", "name"),
    [
        ("filter.wasm", None, "filter"),
        ("/a/b.c.wasm", None, "b.c"),
        ("file:///a/my%20filter.wasm", None, "my filter"),
        ("https://x.example:1/a/filter.wasm?b=/c", "x.example:1", "filter"),
        ("oci://x.example/filter", "x.example", "filter"),
        ("oci://localhost:5000/a/b/filter:1.2", "localhost:5000", "filter"),
        (f"oci://x.example/a/filter:1@sha256:{'0' * 64}", "x.example", "filter"),
    ],
)
def test_what_names_a_module(text, host, name):
    reference = reference_of(text)
    assert (reference and reference.host, name_of(text)) == (host, name)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("ftp://x/y.wasm", "use file:, https://, http:// or oci://"),
        ("https://", "is not a URL"),
        ("https://x:y/", "is not a URL"),
        ("https://x/ y", "is not a URL"),
        ("https://me:secret@x/", "must not contain a user and password"),
        ("oci://x.example", "does not name an image: write it as oci://registry/repository:tag"),
        ("oci://x.example/Upper", "does not name an image"),
        ("oci://x.example/../y", "does not name an image"),
        ("oci://x.example/y:", "has an invalid tag"),
        ("oci://x.example/y@sha256:12", "64 hexadecimal digits"),
        ("oci://me@x.example/y", "does not name an image"),
        ("file://elsewhere/x.wasm", "not a file of this machine"),
    ],
)
def test_what_names_none(text, said):
    from proxywasm_host import FilterConfig

    with pytest.raises(ValueError, match=said) as caught:
        FilterConfig(text)
    assert "secret" not in str(caught.value)
