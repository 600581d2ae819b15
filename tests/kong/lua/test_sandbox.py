"""Hostile plugins: what they may not reach, use up or keep."""

from __future__ import annotations

import gc

import pytest

from proxywasm_host.errors import ConfigError
from proxywasm_host.kong.lua.runtime import Runtime, Settings
from proxywasm_host.kong.plugin import PluginFailed
from tests.kong.lua.support import Gateway, plugin_folder, request


@pytest.fixture(scope="module")
def lua(tmp_path_factory):
    """Evaluates code of a plugin: a module that is loaded."""
    folder = tmp_path_factory.mktemp("modules")
    runtime = Runtime(Settings(folders=[folder], handler_time=0.05, environment={"SEEN": "yes"}))
    names = iter(f"m{n}" for n in range(1000))

    def evaluate(code: str):
        name = next(names)
        (folder / f"{name}.lua").write_text(code)
        return runtime.require(name)

    return evaluate


@pytest.mark.parametrize(
    "name",
    ["io", "python", "dofile", "loadfile", "newproxy", "module", "debug.sethook", "debug.getregistry", "debug.getupvalue",
     "debug.setmetatable", "os.execute", "os.remove", "os.exit", "os.tmpname", "string.dump", "package.loadlib", "package.loaders",
     "package.searchers", "jit.attach", "jit.util", "bit.nothing"],
)  # fmt: skip
def test_what_reaches_outside_is_not_there(lua, name):
    assert lua(f"return {name} == nil")


@pytest.mark.parametrize(
    "name", ["jit.util", "jit.opt", "string.buffer.c", "os.execute", "..secret", "/etc/passwd", "a..b", ""]
)
def test_modules_that_cannot_be_required(lua, name):
    with pytest.raises(PluginFailed, match="not found"):
        lua(f"return require [[{name}]]")


def test_ffi_is_not_the_ffi(lua):
    with pytest.raises(PluginFailed, match=r"the FFI is not in the sandbox: C\.system"):
        lua('require("ffi").cdef[[int system(const char *command);]] return require("ffi").C.system("true")')
    with pytest.raises(PluginFailed, match="the FFI is not in the sandbox: cast"):
        lua('return require("ffi").cast("char *", 0)')


@pytest.mark.parametrize(
    "loader",
    [
        "load(code)",
        "loadstring(code)",
        "load(function() local c = code code = nil return c end)",
        'load(code, "n", "b")',
    ],
)
def test_bytecode_is_refused(lua, loader):
    message = lua(rf'local code = "\27LJ\2\0\0\0" local f, message = {loader} return tostring(f) .. ": " .. message')
    assert message.startswith("nil: ") and "attempt to load" in message


def test_load_has_the_environment_that_is_asked(lua):
    assert lua('return load("return x", "n", "t", { x = 5 })()') == 5
    assert lua('return tostring(load("return x", "n", "t", {})())') == "nil"


@pytest.mark.parametrize("attribute", ["__globals__", "__class__", "__self__", "__init__", "by_name"])
def test_functions_of_python_are_functions_of_lua(lua, attribute):
    code = f'for _, f in pairs {{ ngx.md5, ngx.log, kong.request.get_header, ngx.shared.kong.get }} do if type(f) ~= "function" or pcall(function() return f.{attribute} end) then return false end end return true'
    assert lua(code) is True


def test_an_error_of_python_is_text(lua):
    assert lua("local ok, e = pcall(ngx.req.set_header, 'a', 'b') return type(e) .. ': ' .. e:gsub('^.*%d: ', '')") == (
        "string: API disabled in the current context: there is no request"
    )


def test_null_and_strings_keep_their_metatables(lua):
    assert lua(
        "return type(ngx.null) .. tostring(getmetatable(ngx.null)) .. tostring(getmetatable('')) .. tostring(ngx.null)"
    ) == ("userdatafalsefalseuserdata: NULL")


def test_the_environment_is_what_the_settings_say(lua):
    assert lua("return os.getenv('SEEN') .. tostring(os.getenv('PATH'))") == "yesnil"


LOOPS = {
    "a loop": "while true do end",
    "a loop around pcall": "while true do pcall(function() while true do end end) end",
    "xpcall whose handler loops": "while true do xpcall(error, function() while true do end end) end",
    "recursion in pcall": "local function f(n) if n > 0 then pcall(f, n - 1) pcall(f, n - 1) end end f(60)",
    "coroutines": "while true do coroutine.wrap(function() while true do end end)() end",
    "a coroutine that catches": "local c = coroutine.wrap(function() while true do pcall(function() while true do end end) end end) c()",
    "a metamethod": "return setmetatable({}, { __index = function() while true do end end }).x",
    "a callback of gsub": "return ('x'):gsub('.', function() while true do end end)",
    "a comparison of sort": "local t = {} for i = 1, 9 do t[i] = i end table.sort(t, function() while true do end end)",
    "an error value with code": "error(setmetatable({}, { __tostring = function() while true do end end }))",
}


@pytest.mark.parametrize("code", LOOPS.values(), ids=LOOPS.keys())
def test_an_endless_handler_is_stopped(lua, code):
    with pytest.raises(
        PluginFailed, match=r"the handler used more than its 0\.05 s of processor time|error object is a table value"
    ):
        lua(code)
    assert lua("return 1 + 1") == 2


def test_a_regular_expression_that_backtracks_ends(lua):
    assert lua("local _, _, e = ngx.re.find(('a'):rep(40) .. '!', '^(a+)+$') return e") == "match limit exceeded"


def test_memory_ends_and_the_next_request_has_a_new_runtime(tmp_path):
    plugin_folder(
        tmp_path,
        "hoard",
        """
        local kept, starts = {}, 0
        local hoard = { PRIORITY = 1, VERSION = "1" }
        function hoard:init_worker() starts = starts + 1 end
        function hoard:access()
          if kong.request.get_header("fill") then
            for i = 1, 1e9 do kept[i] = ("x"):rep(10000) .. i end
          end
          kong.service.request.set_header("state", starts .. "/" .. #kept)
        end
        return hoard
        """,
    )
    gateway = Gateway(tmp_path, memory=24 << 20)
    gateway.load("hoard")
    with pytest.raises(PluginFailed, match=r"not enough memory|used up their 25165824 bytes"):
        gateway.through(request(gateway.world, headers={"fill": "1"}))
    after = request(gateway.world)
    gateway.through(after)
    assert after.request.headers.get("state") == "1/0"
    assert gateway.plugins.runtime.memory < 4 << 20


def test_nothing_of_a_coroutine_is_used_after_it(tmp_path):
    """Python once kept tables that went with the coroutine in which they were made: this crashed the process."""
    plugin_folder(
        tmp_path,
        "leaves",
        """
        local leaves = { PRIORITY = 1 }
        function leaves:access()
          local route = kong.router.get_route()
          pcall(kong.service.request.set_header, "x", { "a\\nb" })
          ngx.timer.at(0, function(_, t) kong.log(t.route.name, ("x"):rep(1000)) end, { route = route })
          local garbage = {}
          for i = 1, 3000 do garbage[i] = { i } end
          error({})
        end
        return leaves
        """,
    )
    for _ in range(2):
        gateway = Gateway(tmp_path)
        gateway.load("leaves")
        for _ in range(20):
            with pytest.raises(PluginFailed, match="error object is a table value"):
                gateway.through(request(gateway.world))
        gateway.world.run_timers()
        assert gateway.world.lines == [f"info: [leaves] orders-route{'x' * 1000}"] * 20
        del gateway
        gc.collect()


def test_a_plugin_writes_no_files_but_those_it_may(tmp_path):
    folder, elsewhere = tmp_path / "logs", tmp_path / "elsewhere"
    folder.mkdir()
    elsewhere.write_text("secret")
    (folder / "link").symlink_to(elsewhere)
    runtime = Runtime(Settings(folders=[tmp_path], writable=[folder]))
    (tmp_path / "writes.lua").write_text(
        """
        local ffi = require "ffi"
        return function(path)
          local fd = ffi.C.open(path, 0, 0)
          if fd < 0 then return ffi.string(ffi.C.strerror(ffi.errno())) end
          return ffi.C.write(fd, "line\\n", 5)
        end
        """
    )
    write = runtime.require("writes")
    assert runtime.run_now(write, f"{folder}/a.log") == 5
    assert (folder / "a.log").read_text() == "line\n"
    for path in (elsewhere, folder / "link", folder / ".." / "elsewhere", folder / "none" / "a.log"):
        assert runtime.run_now(write, str(path)) == "Permission denied"
    assert elsewhere.read_text() == "secret"


def test_a_plugin_that_is_not_there_or_broken(tmp_path):
    plugin_folder(tmp_path, "broken", "return {")
    plugin_folder(tmp_path, "fails", "error('no such luck')")
    plugin_folder(tmp_path, "nothing", "return 5")
    gateway = Gateway(tmp_path)
    with pytest.raises(
        ConfigError,
        match=r"no Lua plugin 'none': there is no kong/plugins/none/handler\.lua and no none/handler\.lua in: ",
    ):
        gateway.load("none")
    with pytest.raises(
        ConfigError,
        match=r"'broken' cannot be loaded: error loading module 'kong\.plugins\.broken\.handler'(?s:.)*unexpected symbol",
    ):
        gateway.load("broken")
    with pytest.raises(ConfigError, match=r"'fails' cannot be loaded: (?s:.)*handler\.lua:1: no such luck"):
        gateway.load("fails")
    with pytest.raises(ConfigError, match=r"'nothing' cannot be loaded: handler\.lua returns no table"):
        gateway.load("nothing")
