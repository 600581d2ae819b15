-- Schemas of plugins' configurations: defaults and checks, with Kong's messages.
--
-- A schema is { fields = { { name = definition }, … }, entity_checks = { … } }. A definition has a `type`, and may
-- have a `default` and validators, by name. In a checked value, null stands for a missing field.
local null = ngx.null
local concat, error, find, floor, format, getmetatable, huge, ipairs, next, pairs, pcall, setmetatable, sub, tostring, type =
  table.concat, error, string.find, math.floor, string.format, getmetatable, math.huge, ipairs, next, pairs, pcall, setmetatable, string.sub, tostring, type
local tools, array_mt = require "kong.tools.table", require("cjson").array_mt
local deep_copy = tools.cycle_aware_deep_copy

local Schema = {}
Schema.__index = Schema

-- A definition that can be used as it is, or be called with changes: `typedefs.port { default = 80 }`.
function Schema.define(definition)
  return setmetatable(definition, { __call = function(self, changes)
    local new = deep_copy(self, true)
    for k, v in pairs(changes or {}) do new[k] = v end
    return new
  end })
end

local function quoted(words)
  local out = {}
  for i, word in ipairs(words) do out[i] = type(word) == "table" and "(" .. quoted(word) .. ")" or "'" .. tostring(word) .. "'" end
  return concat(out, ", ")
end
local function is_empty(value)
  return value == nil or value == null or value == "" or (type(value) == "table" and next(value) == nil)
end
local function is_sequence(t)
  if type(t) ~= "table" then return false end
  local n = 0
  for _ in pairs(t) do
    n = n + 1
    if t[n] == nil then return false end
  end
  return true
end
-- The value at `a.b.c` in nested tables.
local function get_field(t, name)
  for part in name:gmatch("[^.]+") do
    if type(t) ~= "table" then return nil end
    t = t[part]
  end
  return t
end
local function set_field(t, name, value)
  local before
  for part in name:gmatch("[^.]+") do
    if before then
      if type(t[before]) ~= "table" then t[before] = {} end
      t = t[before]
    end
    before = part
  end
  t[before] = value
end

-- Validators: they return true, or nil and a message -----------------------------------------------------------------

local function shown(value) return value == null and "null" or tostring(value) end
local function length(what, holds)
  return function(value, n, field)
    local size = #value
    if field.type == "map" then
      size = 0
      for _ in pairs(value) do size = size + 1 end
    end
    if holds(size, n) then return true end
    return nil, format("length must be %s%d", what, n)
  end
end
local function patterns(list, wanted)
  return function(value, arg)
    for _, each in ipairs(arg) do
      if (value:match(each.pattern) ~= nil) ~= wanted then return nil, each.err end
    end
    return true
  end
end
Schema.validators = {
  eq = function(value, wanted) if value == wanted then return true end return nil, "value must be " .. shown(wanted) end,
  ne = function(value, wanted) if value ~= wanted then return true end return nil, "value must not be " .. shown(value) end,
  not_one_of = function(value, options)
    for _, each in ipairs(options) do
      if value == each then return nil, "must not be one of: " .. concat(options, ", ") end
    end
    return true
  end,
  one_of = function(value, options)
    for _, each in ipairs(options) do if value == each then return true end end
    return nil, "expected one of: " .. concat(options, ", ")
  end,
  gt = function(value, limit) if value > limit then return true end return nil, "value must be greater than " .. tostring(limit) end,
  timestamp = function(value) if value > 0 then return true end return nil, "expected a valid timestamp" end,
  uuid = function(value)
    if require("kong.tools.uuid").is_valid_uuid(value) then return true end
    return nil, "expected a valid UUID"
  end,
  is_regex = function(value)
    local _, message = ngx.re.match("any string", value)
    return message == nil
  end,
  between = function(value, limits)
    if value < limits[1] or value > limits[2] then return nil, format("value should be between %d and %d", limits[1], limits[2]) end
    return true
  end,
  len_eq = length("", function(size, n) return size == n end),
  len_min = length("at least ", function(size, n) return size >= n end),
  len_max = length("at most ", function(size, n) return size <= n end),
  starts_with = function(value, prefix)
    if sub(value, 1, #prefix) == prefix then return true end
    return nil, "should start with: " .. prefix
  end,
  not_match = function(value, pattern) if value:match(pattern) then return nil, "invalid value: " .. value end return true end,
  match_none = patterns(nil, false),
  match = function(value, pattern) if value:match(pattern) then return true end return nil, "invalid value: " .. value end,
  match_all = patterns(nil, true),
  match_any = function(value, arg)
    for _, pattern in ipairs(arg.patterns) do if value:match(pattern) then return true end end
    return nil, arg.err
  end,
  contains = function(list, wanted)
    for _, each in ipairs(list) do if each == wanted then return true end end
    return nil, "expected to contain: " .. tostring(wanted)
  end,
  mutually_exclusive_subsets = function(value, subsets)
    local found, seen = {}, {}
    for _, each in ipairs(value) do
      for _, subset in ipairs(subsets) do
        if tools.table_contains(subset, each) and not seen[subset] then
          seen[subset] = true
          found[#found + 1] = subset
        end
      end
    end
    if #found <= 1 then return true end
    return nil, "these sets are mutually exclusive: " .. quoted(found)
  end,
  custom_validator = function(value, f) return f(value) end,
}
local order = {
  "eq", "ne", "not_one_of", "one_of", "gt", "timestamp", "uuid", "is_regex", "between", "len_eq", "len_min", "len_max", "starts_with",
  "not_match", "match_none", "match", "match_all", "match_any", "contains", "custom_validator", "mutually_exclusive_subsets",
}
local generic = { is_regex = "not a valid regex: %s", match_all = "invalid value: %s", match_none = "invalid value: %s", match_any = "invalid value: %s" }

-- Fields -------------------------------------------------------------------------------------------------------------

local validate_record

local function elements(self, definition, value)
  local errors, required = {}, setmetatable({ required = true }, { __index = definition.elements })
  for i = 1, #value do
    local ok, message = self:validate_field(required, value[i])
    if not ok then errors[i] = message end
  end
  if next(errors) then return nil, errors end
  return true
end
local types = {
  array = function(self, definition, value)
    if not is_sequence(value) then return nil, "expected an array" end
    return elements(self, definition, value)
  end,
  set = function(self, definition, value)
    if not is_sequence(value) then return nil, "expected a set" end
    return elements(self, definition, value)
  end,
  map = function(self, definition, value)
    if type(value) ~= "table" then return nil, "expected a map" end
    for k, v in pairs(value) do
      for part, of in pairs { [definition.keys] = k, [definition.values] = v } do
        local ok, message = self:validate_field(setmetatable({ required = true }, { __index = part }), of)
        if not ok then return nil, message end
      end
    end
    return true
  end,
  record = function(_, definition, value)
    if type(value) ~= "table" then return nil, "expected a record" end
    return Schema.new(definition):validate(value)
  end,
  foreign = function() return true end,
  integer = function(_, _, value)
    if type(value) == "number" and value == floor(value) and value ~= huge and value ~= -huge then return true end
    return nil, "expected an integer"
  end,
  json = function() return true end,
  any = function() return true end,
}
for name, article in pairs { string = "a", number = "a", boolean = "a", ["function"] = "a" } do
  types[name] = function(_, _, value)
    if type(value) == name then return true end
    return nil, format("expected %s %s", article, name)
  end
end
Schema.valid_types = types

-- Checks a value against its definition. Returns true, or nil and a message or a table of messages.
function Schema:validate_field(definition, value)
  if value == nil or value == null then
    if definition.ne == null then return nil, definition.err or "value must not be null" end
    if definition.eq ~= nil and definition.eq ~= null then return nil, "value must be " .. tostring(definition.eq) end
    if definition.required then return nil, "required field missing" end
    return true
  end
  if definition.eq == null then return nil, definition.err or "value must be null" end
  local check = types[definition.type]
  if not check then return nil, "invalid type: " .. tostring(definition.type) end
  local ok, message = check(self, definition, value)
  if not ok then return nil, message end
  if definition.type == "string" then
    if definition.referenceable and kong.vault.is_reference(value) then
      return nil, "references to vaults are not supported"
    end
    -- An empty string is not a value, unless the schema allows it.
    if not definition.len_min and value == "" then return nil, definition.err or "length must be at least 1" end
  end
  for _, name in ipairs(order) do
    local argument = definition[name]
    if argument ~= nil then
      ok, message = Schema.validators[name](value, argument, definition)
      if not ok then return nil, definition.err or message or format(generic[name] or "failed validating: %s", tostring(value)) end
    end
  end
  return true
end

-- Checks of several fields -------------------------------------------------------------------------------------------

local function nonempty(entity, names)
  local found = {}
  for _, name in ipairs(names) do
    if not is_empty(get_field(entity, name)) then found[#found + 1] = name end
  end
  return found
end
local function definition_of(schema, name)
  local definition
  for part in name:gmatch("[^.]+") do
    definition = schema and schema.fields[part]
    schema = definition and definition.type == "record" and Schema.new(definition) or nil
  end
  return definition
end
local function matches(schema, name, match, value)
  return schema:validate_field(setmetatable(deep_copy(match, true), { __index = definition_of(schema, name) }), value)
end
local function at_least_one(entity, names, text, custom)
  if #nonempty(entity, names) > 0 then return true end
  return nil, custom and custom:format(quoted(names)) or "at least one of these fields must be non-empty: " .. quoted(names)
end
Schema.entity_checkers = {
  at_least_one_of = function(entity, names) return at_least_one(entity, names) end,
  only_one_of = function(entity, names)
    if #nonempty(entity, names) == 1 then return true end
    return nil, "exactly one of these fields must be non-empty: " .. quoted(names)
  end,
  distinct = function(entity, names)
    local seen = {}
    for _, name in ipairs(nonempty(entity, names)) do
      local value = get_field(entity, name)
      if seen[value] then return nil, "values of these fields must be distinct: " .. quoted(names) end
      seen[value] = true
    end
    return true
  end,
  mutually_required = function(entity, names)
    local found = #nonempty(entity, names)
    if found == 0 or found == #names then return true end
    return nil, "all or none of these fields must be set: " .. quoted(names)
  end,
  mutually_exclusive = function(entity, names)
    if #nonempty(entity, names) <= 1 then return true end
    return nil, "only one or none of these fields must be set: " .. quoted(names)
  end,
  mutually_exclusive_sets = function(entity, arg)
    local first, second = nonempty(entity, arg.set1), nonempty(entity, arg.set2)
    if #first == 0 or #second == 0 then return true end
    return nil, format("these sets are mutually exclusive: (%s), (%s)", quoted(first), quoted(second))
  end,
  conditional = function(entity, arg, schema, errors)
    local value = get_field(entity, arg.if_field)
    if value == nil or not matches(schema, arg.if_field, arg.if_match, value) then return true end
    local ok, message = matches(schema, arg.then_field, arg.then_match, get_field(entity, arg.then_field))
    if ok then return true end
    set_field(errors, arg.then_field, message)
    return nil, arg.then_err and arg.then_err:format(arg.if_field)
      or format("failed conditional validation given value of field '%s'", arg.if_field)
  end,
  conditional_at_least_one_of = function(entity, arg, schema)
    local value = get_field(entity, arg.if_field)
    if value == nil then return true end
    if matches(schema, arg.if_field, arg.if_match, value) then
      return at_least_one(entity, arg.then_at_least_one_of, nil, arg.then_err)
    end
    if arg.else_match and matches(schema, arg.if_field, arg.else_match, value) then
      return at_least_one(entity, arg.else_then_at_least_one_of, nil, arg.else_then_err)
    end
    return true
  end,
  custom_entity_check = function(entity, arg, _, errors)
    for _, name in ipairs(arg.field_sources) do
      if get_field(errors, name) ~= nil then return true end
    end
    local ok, message = arg.fn(entity)
    if ok then return true end
    return nil, message or "entity check failed"
  end,
}

-- Schemas ------------------------------------------------------------------------------------------------------------

local known = setmetatable({}, { __mode = "k" })

-- Makes a schema from its definition. Raises an error if the definition is wrong.
function Schema.new(definition)
  if type(definition) ~= "table" then return nil, "expected a definition table" end
  if getmetatable(definition) == Schema then return definition end
  if known[definition] then return known[definition] end
  if type(definition.fields) ~= "table" then return nil, "error in schema definition: no 'fields' table" end
  local self = setmetatable({ definition = definition, name = definition.name, fields = {}, order = {} }, Schema)
  for _, field in ipairs(definition.fields) do
    local name, of = next(field)
    self.fields[name] = of
    self.order[#self.order + 1] = name
  end
  known[definition] = self
  return self
end
function Schema:each_field()
  local i = 0
  return function()
    i = i + 1
    local name = self.order[i]
    if name ~= nil then return name, self.fields[name] end
  end
end

-- Checks the fields, alone and together. Returns true, or nil and the messages by field; those about several fields are
-- a list in `@entity`.
function Schema:validate(input)
  if type(input) ~= "table" then return nil, "expected an input table" end
  local errors = {}
  for name in pairs(input) do
    if not self.fields[name] then errors[name] = "unknown field" end
  end
  for name, definition in self:each_field() do
    local ok, message = self:validate_field(definition, input[name])
    if not ok then errors[name] = message end
  end
  for _, check in ipairs(self.definition.entity_checks or {}) do
    local name, arg = next(check)
    local checker = Schema.entity_checkers[name]
    if checker and arg ~= null then
      local ok, message = checker(input, arg, self, errors)
      if not ok then
        errors["@entity"] = errors["@entity"] or {}
        table.insert(errors["@entity"], message)
      end
    end
  end
  if self.definition.check and not next(errors) then
    local ok, message = self.definition.check(input)
    if not ok then errors["@entity"] = { type(message) == "string" and message or "entity check failed" } end
  end
  if next(errors) then return nil, errors end
  return true
end

-- Defaults, shorthands and normalized lists -------------------------------------------------------------------------

local process

local function default_of(definition)
  if definition.default ~= nil then
    local copy = deep_copy(definition.default)
    if type(copy) == "table" and (definition.type == "array" or definition.type == "set") and not getmetatable(copy) then
      setmetatable(copy, array_mt)
    end
    return process(definition, copy)
  end
  -- A missing record gets the defaults of its fields, unless its definition allows it to be missing.
  if definition.type == "record" and definition.required ~= false then return Schema.new(definition):with_defaults({}) end
  return null
end
function process(definition, value)
  if value == nil then return default_of(definition) end
  if type(value) ~= "table" then return value end
  if definition.type == "record" and definition.fields then return Schema.new(definition):with_defaults(value) end
  local inside = (definition.type == "array" or definition.type == "set") and definition.elements or definition.type == "map" and definition.values
  if not inside then return value end
  local new, seen = {}, {}
  if definition.type ~= "map" and is_sequence(value) then
    for _, each in ipairs(value) do
      if definition.type == "array" or not seen[each] then
        seen[each] = true
        new[#new + 1] = process(inside, each)
      end
    end
    return setmetatable(new, array_mt)
  end
  for k, v in pairs(value) do new[k] = process(inside, v) end
  return new
end

-- Replaces shorthands and older forms with the fields that they stand for.
local function expand_shorthands(self, data)
  for _, shorthand in ipairs(self.definition.shorthand_fields or {}) do
    local name, definition = next(shorthand)
    local value = data[name]
    if value ~= nil then
      local ok, message = self:validate_field(definition, value)
      if not ok then error({ [name] = message }, 0) end
      data[name] = nil
      for k, v in pairs(definition.func(value) or {}) do
        local there = data[k] ~= null and data[k] or nil
        if type(v) == "table" and type(there) == "table" then
          data[k] = definition.deprecation and tools.deep_merge(v, there) or tools.deep_merge(there, v)
        elseif there == nil or not definition.deprecation then data[k] = v end
      end
    end
  end
end
-- A copy with defaults filled in; a field without a default is null.
function Schema:with_defaults(input)
  local data = {}
  for k, v in pairs(input) do data[k] = v end
  expand_shorthands(self, data)
  for name, definition in self:each_field() do data[name] = process(definition, data[name]) end
  return data
end
function Schema:process_auto_fields(data) return self:with_defaults(data) end

local function without_nulls(value)
  if type(value) ~= "table" then return value end
  local new = {}
  for k, v in pairs(value) do
    if v ~= null then new[k] = without_nulls(v) end
  end
  return setmetatable(new, getmetatable(value))
end
-- An entity in the form for plugins: with defaults and derived fields, without null.
function Schema:prepared(entity)
  local data = without_nulls(self:with_defaults(entity))
  for _, transformation in ipairs(self.definition.transformations or {}) do
    local arguments, complete = {}, true
    for _, list in ipairs { transformation.input or {}, transformation.needs or {} } do
      for _, name in ipairs(list) do
        local value = get_field(data, name)
        complete = complete and value ~= nil
        arguments[#arguments + 1] = value
      end
    end
    if complete and transformation.on_write then
      for k, v in pairs(transformation.on_write(unpack(arguments)) or {}) do data[k] = v end
    end
  end
  return data
end

-- Messages as text: `config.minute: expected an integer; config.…`.
local function collect(errors, prefix, out)
  local keys = {}
  for k in pairs(errors) do keys[#keys + 1] = k end
  table.sort(keys, function(a, b)
    if type(a) == type(b) then return a < b end
    return type(a) == "number"
  end)
  for _, k in ipairs(keys) do
    local message = errors[k]
    if k == "@entity" then
      for _, each in ipairs(message) do out[#out + 1] = (prefix ~= "" and prefix .. ": " or "") .. tostring(each) end
    else
      local name = type(k) == "number" and prefix .. "[" .. k .. "]" or prefix .. (prefix ~= "" and "." or "") .. tostring(k)
      if type(message) == "table" then collect(message, name, out)
      else out[#out + 1] = name .. ": " .. tostring(message) end
    end
  end
  return out
end
function Schema.errors_to_string(errors)
  if type(errors) ~= "table" then return tostring(errors) end
  return concat(collect(errors, "", {}), "; ")
end

-- A plugin's configuration with its defaults; or nil and the errors, as text.
function Schema.check_plugin(definition, config)
  local plugin = Schema.new(definition)
  if not plugin then return "error in schema definition: no 'fields' table" end
  local of_config = plugin.fields.config
  if not of_config then return "error in schema definition: no field 'config'" end
  of_config.required = true
  local ok, complete = pcall(process, of_config, config)
  if not ok then
    if type(complete) ~= "table" then error(complete, 0) end
    return Schema.errors_to_string({ config = complete })
  end
  local input, errors = { config = complete }, nil
  local only_config = { name = definition.name, fields = { { config = of_config } }, entity_checks = definition.entity_checks }
  ok, errors = Schema.new(only_config):validate(input)
  if not ok then return Schema.errors_to_string(errors) end
  return without_nulls(complete)
end
return Schema
