-- kong.vault: refuses references to secrets, so that no plugin uses a reference as the secret.
local function refused() return nil, "vaults are not supported: write the value, or take it from the environment where the file is read" end
local function is_reference(value)
  return type(value) == "string" and value:match("^{vault://[^}]+}$") ~= nil
end
return {
  get = refused, update = refused, flush = function() end, warmup = function() end,
  is_reference = is_reference,
  parse_reference = function(reference)
    if not is_reference(reference) then return nil, "not a reference" end
    return refused()
  end,
  try = function(callback, options) return callback(options) end,
}
