-- Queues of entries that are sent later, in batches, with retries.
local Queue = {}
local queues = {}

local function warn(queue, text, ...) kong.log.warn("[" .. queue.log_tag .. "] queue " .. queue.name .. ": " .. text:format(...)) end

function Queue.get_plugin_params(plugin, config, name)
  local params = {}
  for k, v in pairs(config.queue or {}) do params[k] = v end
  params.name = params.name or name or kong.plugin.get_id()
  params.log_tag = plugin .. " plugin " .. kong.plugin.get_id()
  for old, new in pairs { queue_size = "max_batch_size", flush_timeout = "max_coalescing_delay" } do
    if config[old] ~= nil and config[old] ~= ngx.null then params[new] = config[old] end
  end
  return params
end

local function handle(queue, batch)
  local started, delay = ngx.now(), queue.initial_retry_delay or 0.01
  while true do
    local ran, ok, message = pcall(queue.handler, queue.handler_conf, batch)
    if ran and ok == true then return end
    warn(queue, "handler could not process entries: %s", tostring(ran and message or ok or "no error details returned by handler"))
    if ngx.now() - started > (queue.max_retry_time or 60) then
      kong.log.err("[", queue.log_tag, "] queue ", queue.name, ": could not send entries due to max_retry_time exceeded. ", #batch, " queue entries were lost")
      return
    end
    ngx.sleep(math.min(queue.max_retry_delay or 60, delay))
    delay = delay * 2
  end
end

local function drain(_, queue)
  while #queue.entries > 0 do
    local size, waited = queue.max_batch_size or 1, 0
    while #queue.entries < size and waited < (queue.max_coalescing_delay or 1) do
      local step = math.min(0.05, queue.max_coalescing_delay - waited)
      ngx.sleep(step)
      waited = waited + step
    end
    local batch = {}
    while #batch < size and #queue.entries > 0 do
      local entry = table.remove(queue.entries, 1)
      queue.bytes = queue.bytes - (type(entry) == "string" and #entry or 0)
      batch[#batch + 1] = entry
    end
    handle(queue, batch)
  end
  queues[queue.name] = nil
end

-- Calls `handler(handler_conf, entries)` soon. Returns true, or nil and the reason.
function Queue.enqueue(params, handler, handler_conf, entry)
  assert(type(params) == "table", "queue_conf must be a table")
  assert(type(handler) == "function", "handler must be a function")
  if entry == nil then return nil, "entry must be a non-nil Lua value" end
  local queue = queues[params.name]
  if not queue then
    queue = { entries = {}, bytes = 0, handler = handler }
    for k, v in pairs(params) do queue[k] = v end
  end
  queue.handler_conf = handler_conf
  local size = type(entry) == "string" and #entry or 0
  if queue.max_bytes and size > queue.max_bytes then
    return nil, "string to be queued is longer (" .. size .. " bytes) than the queue's max_bytes (" .. queue.max_bytes .. " bytes)"
  end
  if queue.concurrency_limit == -1 then
    return ngx.timer.at(0, function() handle(queue, { entry }) end)
  end
  while #queue.entries >= (queue.max_entries or 10000) or queue.max_bytes and queue.bytes + size > queue.max_bytes do
    warn(queue, "queue full, dropping old entries until processing is successful again")
    local old = table.remove(queue.entries, 1)
    queue.bytes = queue.bytes - (type(old) == "string" and #old or 0)
  end
  table.insert(queue.entries, entry)
  queue.bytes = queue.bytes + size
  if not queues[params.name] then
    queues[params.name] = queue
    return ngx.timer.at(0, drain, queue)
  end
  return true
end
function Queue.exists(name) return queues[name] ~= nil end
function Queue.is_full(params)
  local queue = queues[params.name]
  return queue ~= nil and #queue.entries >= (queue.max_entries or 10000)
end
function Queue.can_enqueue(params) return not Queue.is_full(params) end
return Queue
