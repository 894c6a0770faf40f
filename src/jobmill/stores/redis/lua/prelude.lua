-- What every script begins with: its arguments, its instant, its numbers, its writes.
-- KEYS[1] is the queue's hash tag; every key of the queue is that and a name. ARGV[1] is a
-- list in MessagePack: one argument, however much is asked, so that no limit of Lua is met.

local call = redis.call
local P = KEYS[1] .. ':'
local META = P .. 'meta'
local AT_ONCE = 1000

local arguments = cmsgpack.unpack(ARGV[1])
local taken = 0

-- The next argument; nil where it is missing.
local function take()
  taken = taken + 1
  return arguments[taken]
end

-- Digits enough that a number comes back exactly.
local function digits(value)
  return string.format('%.17g', value)
end

local function server_time()
  local time = call('TIME')
  return tonumber(time[1]) + tonumber(time[2]) / 1000000
end

local given = nil

-- The instant of this call: the one given, or the server's, which never goes back.
local function instant()
  given = take()
  if given then return given end
  local mark = tonumber(call('HGET', META, 'clock') or 0)
  return math.max(mark, server_time())
end

-- Seconds without a call after which the server may have stood still.
local STILL = 1.5

-- The same, for a call that writes: later calls are not earlier. What it notes of a standstill
-- is for the next claims.
local function new_instant()
  given = take()
  if given then return given end
  local time = server_time()
  local mark = tonumber(call('HGET', META, 'clock') or 0)
  if mark >= time then return mark end
  if mark > 0 and time - mark > STILL then
    call('HSET', META, 'still_from', digits(mark), 'still_to', digits(time))
  end
  call('HSET', META, 'clock', digits(time))
  return time
end

-- What frees memory, or runs what is there, goes on where the memory is full: the server refuses
-- a script at its first write that may take memory, and lets through what follows another one.
local function write_when_full()
  call('DEL', P .. 'room')
end

local numbers = {}

-- The next number of a kind. It begins at the instant's microseconds, so that none is given
-- twice, also where the server lost its last writes.
local function next_number(kind)
  local last = numbers[kind]
  if not last then
    last = tonumber(call('HGET', META, kind) or 0)
    last = math.max(last, math.floor((given or server_time()) * 1000000) - 1)
  end
  numbers[kind] = last + 1
  return last + 1
end

-- Changes of sorted sets: by key, members and their scores, false where one is to go. They
-- are written together, which costs a fraction, by `write_ranks`.
local ranks = {}

local function put_rank(key, score, member)
  local members = ranks[key]
  if not members then
    members = {}
    ranks[key] = members
  end
  members[member] = score
end

local function drop_rank(key, member)
  put_rank(key, false, member)
end

local function write_some(command, key, words)
  for from = 1, #words, AT_ONCE do
    call(command, key, unpack(words, from, math.min(from + AT_ONCE - 1, #words)))
  end
end

-- After this the sorted sets say what was put and dropped.
local function write_ranks()
  for key, members in pairs(ranks) do
    local puts, gone = {}, {}
    for member, score in pairs(members) do
      if score then
        puts[#puts + 1] = score
        puts[#puts + 1] = member
      else
        gone[#gone + 1] = member
      end
    end
    write_some('ZREM', key, gone)
    write_some('ZADD', key, puts)
  end
  ranks = {}
end

local jobs_told = false

local function tell_jobs()
  jobs_told = true
end

local ends_told = {}
local events_told = false

-- What who follows the list of ends and retries waits for, in the place of a job's id.
local ANY_END = '*'

-- Write what was put off, and tell who is concerned; at the end of a call that writes.
local function finish()
  write_ranks()
  for kind, number in pairs(numbers) do
    call('HSET', META, kind, string.format('%.0f', number))
  end
  if jobs_told then call('PUBLISH', P .. 'jobs', '') end
  if (#ends_told > 0 or events_told) and call('EXISTS', P .. 'waiting') == 1 then
    if events_told then ends_told[#ends_told + 1] = ANY_END end
    for _, id in ipairs(ends_told) do
      if call('ZREM', P .. 'waiting', id) == 1 then call('PUBLISH', P .. 'ends', id) end
    end
  end
end
