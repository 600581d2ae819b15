-- kong.table
local tools = require "kong.tools.table"
return { new = require "table.new", clear = require "table.clear", merge = tools.table_merge }
