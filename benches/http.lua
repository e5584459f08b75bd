-- Requests for wrk: keys at random, all requests built before the run, since building them during it would measure Lua.
--
-- Arguments: MODE ENTRIES DEPTH [FACE]
--   MODE     get, set, or mix (nine reads to a write)
--   ENTRIES  number of keys
--   DEPTH    requests in one write
--   FACE     json (/get, /set; the default) or raw (/kv/{key})

local prepared_count = 20000
local threads = {}
local thread_count = 0

function setup(thread)
  thread_count = thread_count + 1
  thread:set("seed", thread_count)
end

local value = string.rep("v", 32)

local function get(face, key)
  if face == "raw" then
    return "GET /kv/" .. key .. " HTTP/1.1\r\nHost: localhost\r\n\r\n"
  end
  return "GET /get?key=" .. key .. " HTTP/1.1\r\nHost: localhost\r\n\r\n"
end

local function set(face, key)
  if face == "raw" then
    return "PUT /kv/" .. key .. " HTTP/1.1\r\nHost: localhost\r\nContent-Length: 32\r\n\r\n" .. value
  end
  local body = '{"key":"' .. key .. '","value":"' .. value .. '"}'
  return "POST /set HTTP/1.1\r\nHost: localhost\r\nContent-Length: " .. #body .. "\r\n\r\n" .. body
end

local requests = {}

function init(args)
  local mode, entries, depth, face = args[1], tonumber(args[2]), tonumber(args[3]), args[4] or "json"
  math.randomseed(seed * 7919 + os.time())
  for i = 1, prepared_count do
    local batch = {}
    for j = 1, depth do
      local key = string.format("key:%012d", math.random(0, entries - 1))
      local is_set = mode == "set" or (mode == "mix" and math.random(10) == 1)
      batch[j] = is_set and set(face, key) or get(face, key)
    end
    requests[i] = table.concat(batch)
  end
end

local next_request = 0

function request()
  next_request = next_request % prepared_count + 1
  return requests[next_request]
end

function done(summary, latency)
  local errors = summary.errors
  io.write(string.format("RESULT %.0f %d %d %d %d\n", summary.requests / (summary.duration / 1e6),
    latency:percentile(50), latency:percentile(99), latency.max,
    errors.connect + errors.read + errors.write + errors.status + errors.timeout))
end
