return {
  name = "gate",
  fields = {
    { config = { type = "record", fields = { { does = { type = "string", default = "pass" } } } } },
  },
}
