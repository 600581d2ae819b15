-- Kong's constants that plugins use.
local subsystem = {
  http = "http", https = "http", grpc = "http", grpcs = "http", tcp = "stream", tls = "stream", udp = "stream", tls_passthrough = "stream",
}
local protocols = {}
for name in pairs(subsystem) do protocols[#protocols + 1] = name end
table.sort(protocols)

return {
  CJSON_MAX_PRECISION = 16,
  HEADERS = {
    HOST_OVERRIDE = "X-Host-Override", PROXY_LATENCY = "X-Kong-Proxy-Latency", RESPONSE_LATENCY = "X-Kong-Response-Latency",
    UPSTREAM_LATENCY = "X-Kong-Upstream-Latency", UPSTREAM_STATUS = "X-Kong-Upstream-Status",
    CONSUMER_ID = "X-Consumer-ID", CONSUMER_CUSTOM_ID = "X-Consumer-Custom-ID", CONSUMER_USERNAME = "X-Consumer-Username",
    CREDENTIAL_IDENTIFIER = "X-Credential-Identifier", RATELIMIT_LIMIT = "X-RateLimit-Limit", RATELIMIT_REMAINING = "X-RateLimit-Remaining",
    CONSUMER_GROUPS = "X-Consumer-Groups", AUTHENTICATED_GROUPS = "X-Authenticated-Groups", FORWARDED_HOST = "X-Forwarded-Host",
    FORWARDED_PATH = "X-Forwarded-Path", FORWARDED_PREFIX = "X-Forwarded-Prefix", ANONYMOUS = "X-Anonymous-Consumer",
    REQUEST_ID = "X-Kong-Request-Id", VIA = "Via", SERVER = "Server",
  },
  RATELIMIT = { PERIODS = { "second", "minute", "hour", "day", "month", "year" } },
  DATABASE = { DAO_MAX_TTL = 1e8 },
  PROTOCOLS = protocols,
  PROTOCOLS_WITH_SUBSYSTEM = subsystem,
  LOG_LEVELS = {
    debug = 8, info = 7, notice = 6, warn = 5, error = 4, crit = 3, alert = 2, emerg = 1,
    [8] = "debug", [7] = "info", [6] = "notice", [5] = "warn", [4] = "error", [3] = "crit", [2] = "alert", [1] = "emerg",
  },
  RESPONSE_SOURCE = {
    TYPES = { ERROR = "error", EXIT = "exit", SERVICE = "service" }, NAMES = { error = "kong", exit = "kong", service = "upstream" },
  },
}
