"""Schemas: the defaults of a configuration, and what is said of one that is wrong."""

from __future__ import annotations

import pytest

from proxywasm_host.errors import ConfigError
from tests.kong.lua.support import Gateway, plugin_folder, request

FIELDS = """
local typedefs = require "kong.db.schema.typedefs"
return {
  name = "p",
  fields = {
    { consumer = typedefs.no_consumer }, { protocols = typedefs.protocols_http },
    { config = { type = "record", fields = {
      %s
    } %s } },
  },
  %s
}
"""


@pytest.fixture
def check(tmp_path):
    """Check a configuration by fields, more of the record, and more of the schema."""

    def run(config, fields, record="", schema=""):
        plugin_folder(tmp_path, "p", "return { PRIORITY = 1, VERSION = '1' }", FIELDS % (fields, record, schema))
        return Gateway(tmp_path).plugins.load("p").check(config)

    return run


DEFAULTS = [
    ({}, '{ a = { type = "integer", default = 5 } }', {"a": 5}),
    ({"a": 6}, '{ a = { type = "integer", default = 5 } }', {"a": 6}),
    ({"a": None}, '{ a = { type = "integer", default = 5 } }', {}),
    ({}, '{ a = { type = "string" } }', {}),
    ({}, '{ a = { type = "record", fields = { { b = { type = "boolean", default = false } } } } }', {"a": {"b": False}}),
    ({}, '{ a = { type = "record", required = false, fields = { { b = { type = "boolean", default = true } } } } }', {}),
    ({"a": [{}]}, '{ a = { type = "array", elements = { type = "record", fields = { { b = { type = "number", default = 0.5 } } } } } }', {"a": [{"b": 0.5}]}),
    ({"a": ["x", "y", "x"]}, '{ a = { type = "set", elements = { type = "string" } } }', {"a": ["x", "y"]}),
    ({"a": {"k": "é"}}, '{ a = { type = "map", keys = { type = "string" }, values = { type = "string" } } }', {"a": {"k": "é"}}),
    ({}, "{ a = typedefs.port { default = 80 } }", {"a": 80}),
    ({}, "{ a = typedefs.queue }", {"a": {"max_batch_size": 1, "max_coalescing_delay": 1, "max_entries": 10000, "max_retry_time": 60, "initial_retry_delay": 0.01, "max_retry_delay": 60, "concurrency_limit": 1}}),
]  # fmt: skip


@pytest.mark.parametrize(("config", "fields", "checked"), DEFAULTS)
def test_defaults(check, config, fields, checked):
    assert check(config, fields) == checked


STRING, INTEGER = '{ a = { type = "string", %s } }', '{ a = { type = "integer", %s } }'
WRONG = [
    ({"b": 1}, STRING % "", "config.b: unknown field"),
    ({}, STRING % "required = true", "config.a: required field missing"),
    ({"a": 5}, STRING % "", "config.a: expected a string"),
    ({"a": ""}, STRING % "", "config.a: length must be at least 1"),
    ({"a": "x"}, STRING % "len_min = 2", "config.a: length must be at least 2"),
    ({"a": "xyz"}, STRING % "len_max = 2", "config.a: length must be at most 2"),
    ({"a": "xyz"}, STRING % "len_eq = 2", "config.a: length must be 2"),
    ({"a": "x"}, STRING % 'one_of = { "y", "z" }', "config.a: expected one of: y, z"),
    ({"a": "y"}, STRING % 'not_one_of = { "y", "z" }', "config.a: must not be one of: y, z"),
    ({"a": "x"}, STRING % 'match = "^%d+$"', "config.a: invalid value: x"),
    ({"a": "x"}, STRING % 'match_none = { { pattern = "x", err = "no x" } }', "config.a: no x"),
    ({"a": "x"}, STRING % 'match_any = { patterns = { "y" }, err = "y, please" }', "config.a: y, please"),
    ({"a": "x"}, STRING % 'starts_with = "/"', "config.a: should start with: /"),
    ({"a": "("}, STRING % "is_regex = true", "config.a: not a valid regex: ("),
    ({"a": "x"}, STRING % "uuid = true", "config.a: expected a valid UUID"),
    ({"a": "x"}, STRING % 'eq = "y"', "config.a: value must be y"),
    ({"a": "x"}, STRING % 'ne = "x"', "config.a: value must not be x"),
    ({"a": "x"}, STRING % 'custom_validator = function(v) return nil, v .. " is not it" end', "config.a: x is not it"),
    ({"a": "x"}, STRING % 'custom_validator = function() return false end, err = "mine"', "config.a: mine"),
    ({"a": "{vault://env/x}"}, STRING % "referenceable = true", "config.a: references to vaults are not supported"),
    ({"a": 1.5}, INTEGER % "", "config.a: expected an integer"),
    ({"a": 5}, INTEGER % "between = { 1, 3 }", "config.a: value should be between 1 and 3"),
    ({"a": 0}, INTEGER % "gt = 0", "config.a: value must be greater than 0"),
    ({"a": "x"}, '{ a = { type = "boolean" } }', "config.a: expected a boolean"),
    ({"a": {"k": 1}}, '{ a = { type = "array", elements = { type = "string" } } }', "config.a: expected an array"),
    ({"a": ["x", 1]}, '{ a = { type = "array", elements = { type = "string" } } }', "config.a[2]: expected a string"),
    ({"a": ["x"]}, '{ a = { type = "array", elements = { type = "string" }, contains = "y" } }', "config.a: expected to contain: y"),
    ({"a": {"k": 1}}, '{ a = { type = "map", keys = { type = "string" }, values = { type = "string" } } }', "config.a: expected a string"),
    ({"a": 1}, '{ a = { type = "record", fields = {} } }', "config.a: expected a record"),
    ({"a": {"b": 1}}, '{ a = { type = "record", fields = { { b = { type = "string" } } } } }', "config.a.b: expected a string"),
    ({"a": 70000}, "{ a = typedefs.port }", "config.a: value should be between 0 and 65535"),
    ({"a": "h:80"}, "{ a = typedefs.host }", "config.a: must not have a port"),
    ({"a": "1.2.3"}, "{ a = typedefs.host }", "config.a: invalid value: 1.2.3"),
    ({"a": "1.2.3"}, "{ a = typedefs.ip }", "config.a: not an ip address: 1.2.3"),
    ({"a": "1.2.3.4/33"}, "{ a = typedefs.ip_or_cidr }", "config.a: invalid ip or cidr range: '1.2.3.4/33'"),
    ({"a": "no url"}, "{ a = typedefs.url }", "config.a: missing host in url"),
    ({"a": "/x//y"}, "{ a = typedefs.path }", "config.a: must not have empty segments"),
    ({"a": "/%zz"}, "{ a = typedefs.path }", "config.a: invalid url-encoded value: '%zz'"),
    ({"a": "x y"}, "{ a = typedefs.header_name }", "config.a: bad header name 'x y', allowed characters are A-Z, a-z, 0-9, '_', and '-'"),
    ({"a": -1}, "{ a = typedefs.timeout }", "config.a: value should be between 0 and 2147483646"),
    ({"a": "get"}, "{ a = typedefs.http_method }", "config.a: invalid value: get"),
    ({"a": "no key"}, "{ a = typedefs.key }", "config.a: invalid key: pkey.new: "),
    ({"a": {"x": "return ("}}, "{ a = typedefs.lua_code }", "config.a: Error parsing function: "),
]  # fmt: skip


@pytest.mark.parametrize(("config", "fields", "message"), WRONG, ids=[message for *_, message in WRONG])
def test_what_is_wrong_with_a_field(check, config, fields, message):
    with pytest.raises(ConfigError) as raised:
        check(config, fields)
    assert str(raised.value).startswith(message)
    assert message.endswith(": ") or str(raised.value) == message


TWO = '{ a = { type = "string" } }, { b = { type = "string" } }'
CHECKS = [
    ({}, 'at_least_one_of = { "config.a", "config.b" }', "at least one of these fields must be non-empty: 'config.a', 'config.b'"),
    ({"a": "x", "b": "y"}, 'only_one_of = { "config.a", "config.b" }', "exactly one of these fields must be non-empty: 'config.a', 'config.b'"),
    ({"a": "x"}, 'mutually_required = { "config.a", "config.b" }', "all or none of these fields must be set: 'config.a', 'config.b'"),
    ({"a": "x", "b": "y"}, 'mutually_exclusive = { "config.a", "config.b" }', "only one or none of these fields must be set: 'config.a', 'config.b'"),
    ({"a": "x", "b": "x"}, 'distinct = { "config.a", "config.b" }', "values of these fields must be distinct: 'config.a', 'config.b'"),
    ({"a": "x", "b": "y"}, 'mutually_exclusive_sets = { set1 = { "config.a" }, set2 = { "config.b" } }', "these sets are mutually exclusive: ('config.a'), ('config.b')"),
    ({"a": "x"}, 'conditional = { if_field = "config.a", if_match = { eq = "x" }, then_field = "config.b", then_match = { required = true } }', "failed conditional validation given value of field 'config.a'; config.b: required field missing"),
    ({"a": "x"}, 'conditional_at_least_one_of = { if_field = "config.a", if_match = { eq = "x" }, then_at_least_one_of = { "config.b" } }', "at least one of these fields must be non-empty: 'config.b'"),
    ({"a": "x"}, 'custom_entity_check = { field_sources = { "config" }, fn = function(e) return e.config.a ~= "x", "not x" end }', "not x"),
]  # fmt: skip


@pytest.mark.parametrize(("config", "entity_check", "message"), CHECKS, ids=[message for *_, message in CHECKS])
def test_what_is_wrong_with_several_fields(check, config, entity_check, message):
    with pytest.raises(ConfigError) as raised:
        check(config, TWO, schema=f"entity_checks = {{ {{ {entity_check} }} }}")
    assert str(raised.value) == message


def test_a_condition_that_does_not_hold(check):
    condition = 'conditional = { if_field = "config.a", if_match = { eq = "x" }, then_field = "config.b", then_match = { required = true } }'
    assert check({"a": "y"}, TWO, schema=f"entity_checks = {{ {{ {condition} }} }}") == {"a": "y"}


SHORT = """, shorthand_fields = { { old = { type = "string", deprecation = { message = "m", removal_in_version = "4" },
  func = function(v) return { new = { host = v } } end } } }"""
NEW = '{ new = { type = "record", fields = { { host = { type = "string" } }, { port = { type = "integer", default = 1 } } } } }'


def test_older_names_of_fields(check):
    assert check({"old": "h"}, NEW, SHORT) == {"new": {"host": "h", "port": 1}}
    assert check({"old": "h", "new": {"host": "n"}}, NEW, SHORT) == {"new": {"host": "n", "port": 1}}
    with pytest.raises(ConfigError, match=r"^config\.old: expected a string$"):
        check({"old": 5}, NEW, SHORT)


@pytest.mark.parametrize(
    ("schema", "message"),
    [
        ("return {}", "error in schema definition: no 'fields' table"),
        ("return { fields = {} }", "error in schema definition: no field 'config'"),
        ('return { fields = { { config = { type = "record", fields = { { a = { type = "strin" } } } } } } }', "config.a: invalid type: strin"),
        ('return { fields = { { config = { type = "record", fields = { { a = { type = "string", custom_validator = function() while true do end end } } } } } } }', "the schema of 'p' failed: the handler used more than its 0.05 s"),
    ],
)  # fmt: skip
def test_schemas_that_are_wrong(tmp_path, schema, message):
    plugin_folder(tmp_path, "p", "return { PRIORITY = 1 }", schema)
    plugin = Gateway(tmp_path, handler_time=0.05).plugins.load("p")
    with pytest.raises(ConfigError) as raised:
        plugin.check({"a": "x"})
    assert str(raised.value).startswith(message)


def test_a_plugin_keeps_things_by_its_configuration(tmp_path):
    handler = """
    local seen = setmetatable({}, { __mode = "k" })
    local p = { PRIORITY = 5, VERSION = "2.0" }
    function p:configure(configs) self.n = configs and #configs or 0 end
    function p:access(conf)
      seen[conf] = (seen[conf] or 0) + 1
      kong.service.request.set_header("seen", conf.list[1] .. seen[conf] .. "/" .. self.n)
    end
    return p
    """
    schema = 'return { fields = { { config = { type = "record", fields = { { list = { type = "array", elements = { type = "string" } } } } } } } }'
    plugin_folder(tmp_path, "p", handler, schema)
    gateway = Gateway(tmp_path)
    plugin = gateway.plugins.load("p")
    first, second = plugin.check({"list": ["a"]}), plugin.check({"list": ["b"]})
    gateway.world.perform(plugin.run("configure", None, [first, second]))
    seen = []
    for config in (first, second, first):
        context = request(gateway.world)
        gateway.world.perform(plugin.run("access", context, config), context)
        seen.append(context.request.headers.get("seen"))
    assert seen == ["a1/2", "b1/2", "a2/2"]
    assert (plugin.name, plugin.priority, plugin.version) == ("p", 5, "2.0")
    assert plugin.phases == {"configure", "access", "header_filter"}


def test_plugins_with_modules_and_entities_of_their_own(tmp_path):
    plugin_folder(
        tmp_path,
        "tokens",
        """
        local greet = require "kong.plugins.tokens.greeting"
        local tokens = { PRIORITY = 1 }
        function tokens:access()
          local token = kong.db.tokens:select_by_name("t")
          kong.service.request.set_header("x-token", greet(token.kind, token.hash))
        end
        return tokens
        """,
        greeting='return function(a, b) return a .. ":" .. b .. require("shared_module") end',
        daos="""
        return { { name = "tokens", fields = {
            { name = { type = "string" } }, { kind = { type = "string", default = "plain" } }, { hash = { type = "string" } },
          }, transformations = { { input = { "hash" }, on_write = function(h) return { hash = ngx.md5(h):sub(1, 4) } end } },
        } }
        """,
    )
    (tmp_path / "shared_module.lua").write_text("return '!'")
    gateway = Gateway(tmp_path)
    gateway.load("tokens")
    context = request(gateway.world, entities={"tokens": [{"id": "1", "name": "t", "hash": "a"}]})
    gateway.through(context)
    assert context.request.headers.get("x-token") == "plain:0cc1!"
