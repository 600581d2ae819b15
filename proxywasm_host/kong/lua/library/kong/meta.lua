-- The version of Kong whose PDK is implemented here.
return {
  _VERSION = "3.9.0", version = "3.9.0", _SERVER_TOKENS = "kong/3.9.0",
  _VERSION_TABLE = { major = 3, minor = 9, patch = 0 }, version_num = 3009000,
}
