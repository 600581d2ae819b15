"""Filters are compiled in a thread before they are loaded: once, and within the same limits."""

from __future__ import annotations

from proxywasm_host import Host, ModuleCache, ModuleLimits
from proxywasm_host.driver import filters
from proxywasm_host.driver.filters import Filter
from tests.support import code


class Counted:
    """An engine that counts what it is given to compile."""

    def __init__(self, engine) -> None:
        self._engine = engine
        self.compiled = 0

    def __getattr__(self, name: str):
        found = getattr(self._engine, name)
        return self._counting(found) if name in ("compile", "compile_early") else found

    def _counting(self, compile):
        def counting(*arguments):
            self.compiled += 1
            return compile(*arguments)

        return counting


def test_what_was_compiled_before_is_found(engine):
    counted = Counted(engine)
    chain = [Filter(code("c/minimal")), Filter(code("c/minimal"), vm_id="another")]
    with Host(counted, cache=ModuleCache(None)) as host:
        filters.compile(host, chain)
        assert counted.compiled == 1
        assert [plugin.failure for plugin in filters.load(host, chain)] == [None, None]
        assert counted.compiled == 1


def test_what_is_beyond_its_limits_is_not_compiled(engine):
    counted = Counted(engine)
    with Host(counted, cache=ModuleCache(None), module_limits=ModuleLimits(functions=2)) as host:
        filters.compile(host, [Filter(code("rust/headers")), Filter(b"no module"), Filter("no/such/file.wasm")])
        filters.compile(host, [Filter(code("rust/auth"), module_limits=ModuleLimits(body=10))])
    assert counted.compiled == 0
