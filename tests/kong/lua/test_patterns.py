"""Patterns of Lua that are matched in Lua: results are LuaJIT's own, and time is limited."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from lupa import luajit21 as lupa

from proxywasm_host.kong.lua.runtime import PATTERNS, Runtime, Settings
from proxywasm_host.kong.plugin import PluginFailed

COMPARE = """
local native = { find = string.find, match = string.match, gmatch = string.gmatch, gsub = string.gsub }
local set_budget = assert(loadstring(...))()
set_budget(-1)
local function packed(...) return { n = select("#", ...), ... } end
local function all(f, text, pattern)
  local found = {}
  for a, b, c in f(text, pattern) do
    found[#found + 1] = packed(a, b, c)
    if #found > 100 then break end
  end
  return found
end
local function shown(ok, value)
  if not ok then return "error: " .. tostring(value):gsub("^.-:%d+: ", "") end
  local function show(v)
    if type(v) ~= "table" then return type(v) .. ":" .. tostring(v) end
    local parts = {}
    for i = 1, v.n or #v do parts[i] = show(v[i]) end
    return "{" .. table.concat(parts, ",") .. "}"
  end
  return show(value)
end
return function(text, pattern, init, replacement)
  local function four(of)
    return shown(pcall(function() return packed(of.find(text, pattern, init)) end)),
      shown(pcall(function() return packed(of.match(text, pattern, init)) end)),
      shown(pcall(function() return all(of.gmatch, text, pattern) end)),
      shown(pcall(function() return packed(of.gsub(text, pattern, replacement)) end)),
      shown(pcall(function() return packed(of.gsub(text, pattern, function(a, b) return (b or "") .. a end, 2)) end)),
      shown(pcall(function() return packed(of.find(text, pattern, init, true)) end))
  end
  return { ours = { four(string) }, native = { four(native) } }
end
"""
ITEM = st.sampled_from(["a", "b", ".", "%a", "%d", "%s", "%W", "[ab]", "[^a]", "[a-c%d]", "[]a]", "[^]]", "[a-]", "%.", "é", "[%]x]"])
TIMES = st.sampled_from(["", "", "*", "+", "-", "?"])
SIMPLE = st.builds(str.__add__, ITEM, TIMES)
PART = st.one_of(SIMPLE, SIMPLE, st.sampled_from(["()", "%b()", "%bab", "%f[%a]", "%1", "$"]), SIMPLE.map(lambda item: f"({item})"))
PATTERN = st.builds(lambda begin, parts: begin + "".join(parts), st.sampled_from(["", "", "^"]), st.lists(PART, max_size=6))
TEXT = st.text(alphabet="aab.(1 )\0é", max_size=12)


@pytest.fixture(scope="module")
def compare():
    lua = lupa.LuaRuntime(encoding="latin-1")
    return lua.execute(COMPARE, PATTERNS)


@settings(max_examples=200)
@given(TEXT, PATTERN, st.integers(-4, 14), st.sampled_from(["x", "<%0>", "%1", "%%", ""]))
def test_results_are_those_of_luajit(compare, text, pattern, init, replacement):
    found = compare(text, pattern, init, replacement)
    for ours, native in zip(found["ours"].values(), found["native"].values(), strict=True):
        if not ours.startswith("error: "):  # what is wrong with a pattern is told before a part of it has matched
            assert ours == native


@pytest.mark.parametrize("pattern", ["(", ")", "[a", "[", "%", "%f", "%1", "(%1)", "%b", "a(", "[%"])
def test_what_is_no_pattern_is_told_as_luajit_does(compare, pattern):
    found = compare("aaa", pattern, 1, "x")
    assert found["ours"][2].startswith("error: ")
    assert found["native"][2].startswith("error: ")


@pytest.mark.parametrize(
    "call",
    [
        "string.find(text, '.-.-.-.-.-.-b')",
        "text:match('^(.*)(.*)(.*)(.*)b')",
        "string.gsub(text, '.-.-.-.-b', '')",
        "for _ in text:gmatch('.-.-.-.-b') do end",
        "text:find(('a?'):rep(60) .. 'b')",
        "string.find(('a'):rep(200000), ('a'):rep(100000) .. 'b', 1, true)",
    ],
)
def test_a_pattern_that_takes_long_ends_with_its_handlers_time(tmp_path, call):
    (tmp_path / "slow.lua").write_text(f"local text = ('a'):rep(8192) {'' if call.startswith('for') else 'local _ ='} {call}")
    runtime = Runtime(Settings(folders=[tmp_path], handler_time=0.05))
    with pytest.raises(PluginFailed, match=r"the handler used more than its 0\.05 s of processor time"):
        runtime.require("slow")
