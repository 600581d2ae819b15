-- Random UUIDs.
local _, host = ...
return {
  uuid = function() return host.uuid() end,
  is_valid_uuid = function(s)
    return type(s) == "string" and #s == 36 and s:lower():match("^%x%x%x%x%x%x%x%x%-%x%x%x%x%-%x%x%x%x%-%x%x%x%x%-%x%x%x%x%x%x%x%x%x%x%x%x$") ~= nil
  end,
}
