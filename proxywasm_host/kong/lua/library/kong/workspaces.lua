-- There is only one workspace.
return {
  get_workspace_id = function() return kong.default_workspace end,
  get_workspace = function() return { id = kong.default_workspace, name = "default" } end,
}
