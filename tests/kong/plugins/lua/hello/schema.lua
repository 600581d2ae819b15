return {
  name = "hello",
  fields = {
    { config = { type = "record", fields = { { word = { type = "string", default = "moin" } } } } },
  },
}
