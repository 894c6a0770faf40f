-- What every script begins with: its arguments, its instant, its numbers.
-- KEYS[1] is the queue's hash tag; every key of the queue is that and a name.

local call = redis.call
local P = KEYS[1] .. ':'
local META = P .. 'meta'

local taken = 0

local function take()
  taken = taken + 1
  return ARGV[taken]
end

-- An argument that may be missing: empty, or a plus sign and the value.
local function maybe()
  local value = take()
  if value == '' then return nil end
  return string.sub(value, 2)
end

local function number()
  return tonumber(take())
end

-- Digits enough that a number comes back exactly.
local function digits(value)
  return string.format('%.17g', value)
end

local function server_time()
  local time = call('TIME')
  return tonumber(time[1]) + tonumber(time[2]) / 1000000
end

-- The instant of this call: the one given, or the server's, which never goes back.
local function instant()
  local given = maybe()
  if given then return tonumber(given) end
  local time = server_time()
  local mark = tonumber(call('HGET', META, 'clock') or 0)
  if mark > time then return mark end
  return time
end

-- The same, for a call that writes: later calls are not earlier.
local function new_instant()
  local given = maybe()
  if given then return tonumber(given) end
  local time = server_time()
  local mark = tonumber(call('HGET', META, 'clock') or 0)
  if mark >= time then return mark end
  call('HSET', META, 'clock', digits(time))
  return time
end

-- The next number of a kind. It begins at the server's microseconds, so that none is given
-- twice, also where the server lost its last writes.
local function next_number(kind)
  local last = tonumber(call('HGET', META, kind) or 0)
  local fresh = math.max(last + 1, math.floor(server_time() * 1000000))
  call('HSET', META, kind, string.format('%.0f', fresh))
  return fresh
end

local jobs_told = false

local function tell_jobs()
  jobs_told = true
end

local ends_told = {}

-- Tell who is concerned; at the end of a call that writes.
local function publish()
  if jobs_told then call('PUBLISH', P .. 'jobs', '') end
  if #ends_told > 0 and call('EXISTS', P .. 'waiting') == 1 then
    for _, id in ipairs(ends_told) do
      if call('ZREM', P .. 'waiting', id) == 1 then call('PUBLISH', P .. 'ends', id) end
    end
  end
end
