"""Instances need address space: where it is used up, those that are there go on, and others are refused with the reason."""

import subprocess
import sys

import pytest

from tests.conftest import ENGINES

PROGRAM = """
import resource, sys
from proxywasm_host import Host, ModuleError, PluginError, open_engine
from tests.support import REQUEST, code

with Host(open_engine(sys.argv[1]), profile="wasmx") as host:
    module = code("rust/headers")
    good = host.load_plugin(module, name="good", configuration="good")
    own = host.load_plugin(module, name="own", configuration="own", isolation="stream")
    limit = int(open("/proc/self/statm").read().split()[0]) * 4096 + (20 << 30)
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))

    def through(plugin, stream):
        head = stream.request_headers(REQUEST, True)[0]
        return (b"x-wasm", plugin.name.encode()) in head.headers or head.headers[0]

    streams, answers = [], [True]
    while answers[-1] is True and len(streams) < 30:
        streams.append(host.http_stream([own]))
        answers.append(through(own, streams[-1]))
    print(len(streams) > 2, answers[-1])
    print(streams[-1].failure.message)
    try:
        host.load_plugin(module, name="another", vm_id="another")
    except (ModuleError, PluginError) as error:
        print(str(error).splitlines()[0])
    for stream in streams:
        stream.close()
    for plugin in (good, own):
        with host.http_stream([plugin]) as stream:
            print(through(plugin, stream))
"""


@pytest.mark.parametrize("engine", ENGINES)
def test_no_room_for_another_instance(engine: str) -> None:
    done = subprocess.run([sys.executable, "-c", PROGRAM, engine], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    stream, *reasons, good, own = done.stdout.splitlines()
    assert stream == "True (b':status', b'500')"
    assert len(reasons) == 2
    assert all("address space" in reason or "Cannot allocate memory" in reason for reason in reasons), reasons
    assert (good, own) == ("True", "True")
