return {
  name = "calls",
  fields = {
    { config = { type = "record", fields = {
      { url = { type = "string", required = true } },
      { host = { type = "string", required = true } },
      { port = { type = "integer", required = true } },
      { file = { type = "string", required = true } },
    } } },
  },
}
