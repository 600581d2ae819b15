"""Handlers are found by the names of their rows."""

from __future__ import annotations

import pytest

from proxywasm_host.abi.hostcalls import HANDLERS, MODULES, WASI_HANDLERS, _find, basics, wasi


def test_each_hostcall_has_the_function_of_its_name():
    assert {name: handler.__name__ for name, handler in HANDLERS.items()} == {name: name for name in HANDLERS}
    assert HANDLERS["proxy_log"] is basics.proxy_log


def test_wasi_has_handlers_of_its_own():
    assert WASI_HANDLERS["fd_write"] is wasi.fd_write
    assert WASI_HANDLERS["fd_sync"] is WASI_HANDLERS["fd_datasync"]


def test_a_row_without_a_handler():
    with pytest.raises(LookupError, match=r"^'?no handler for proxy_no_such'?$"):
        _find("proxy_no_such", MODULES)
