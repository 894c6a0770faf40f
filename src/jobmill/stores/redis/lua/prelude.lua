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

local written = {}

-- Digits enough that a number comes back exactly. Most of a call's numbers are the same few, and
-- writing one takes half as long as a command.
local function digits(value)
  local text = written[value]
  if not text then
    text = string.format('%.17g', value)
    written[value] = text
  end
  return text
end

local top, top_text = nil, nil

-- A whole number in 16 digits; quick where it is near the one before.
local function sixteen(number)
  local millions = math.floor(number / 1000000)
  if millions ~= top then
    top, top_text = millions, string.format('%010.0f', millions)
  end
  return top_text .. string.format('%06d', number - millions * 1000000)
end

local instants = {}

-- An instant as the score of a sorted set: microseconds, which the server reads and keeps at a
-- fraction of the cost of a number with a point.
local function score_of(at)
  local text = instants[at]
  if not text then
    text = string.format('%.0f', at * 1000000)
    instants[at] = text
  end
  return text
end

local function server_time()
  local time = call('TIME')
  return tonumber(time[1]) + tonumber(time[2]) / 1000000
end

-- The instant up to which the queue has come.
local function mark_of_time()
  local got = call('HMGET', META, 'clock', 'listed')
  if got[2] and got[2] ~= LAYOUT then error('keys of layout ' .. got[2] .. ', not ' .. LAYOUT) end
  return tonumber(got[1] or 0)
end

local given = nil

-- The instant of this call: the one given, or the server's, which never goes back.
local function instant()
  given = take()
  if given then return given end
  return math.max(mark_of_time(), server_time())
end

-- Seconds without a call after which the server may have stood still.
local STILL = 1.5

-- The same, for a call that writes: later calls are not earlier. What it notes of a standstill
-- is for the next claims.
local function new_instant()
  given = take()
  if given then return given end
  local mark, time = mark_of_time(), server_time()
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

local function write_some(command, key, words, many)
  for from = 1, many, AT_ONCE do
    call(command, key, unpack(words, from, math.min(from + AT_ONCE - 1, many)))
  end
end

-- Changes of sorted sets, by name. They are written together, which costs a fraction, by
-- `write_ranks`; of one set either puts or drops are open, so that the order is kept.
local puts, drops = {}, {}

local function put_rank(name, score, member)
  local gone = drops[name]
  if gone then
    write_some('ZREM', P .. name, gone, gone.many)
    drops[name] = nil
  end
  local words = puts[name]
  if not words then
    words = { many = 0 }
    puts[name] = words
  end
  local many = words.many
  words[many + 1] = score
  words[many + 2] = member
  words.many = many + 2
end

local function drop_rank(name, member)
  local come = puts[name]
  if come then
    write_some('ZADD', P .. name, come, come.many)
    puts[name] = nil
  end
  local words = drops[name]
  if not words then
    words = { many = 0 }
    drops[name] = words
  end
  local many = words.many + 1
  words[many] = member
  words.many = many
end

-- After this the sorted sets say what was put and dropped.
local function write_ranks()
  for name, gone in pairs(drops) do write_some('ZREM', P .. name, gone, gone.many) end
  for name, come in pairs(puts) do write_some('ZADD', P .. name, come, come.many) end
  puts, drops = {}, {}
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
    call('HSET', META, kind, sixteen(number))
  end
  if jobs_told then call('PUBLISH', P .. 'jobs', '') end
  if (#ends_told > 0 or events_told) and call('EXISTS', P .. 'waiting') == 1 then
    if events_told then ends_told[#ends_told + 1] = ANY_END end
    for _, id in ipairs(ends_told) do
      if call('ZREM', P .. 'waiting', id) == 1 then call('PUBLISH', P .. 'ends', id) end
    end
  end
end
