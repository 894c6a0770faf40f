-- One job: its hash, and the one place where it stands by its state.

local NUMBERS = {
  due = true, seq = true, priority = true, attempts = true, lapses = true, lease = true,
  expires = true, started = true, generation = true,
}
local FIELDS = {
  'name', 'state', 'due', 'seq', 'priority', 'attempts', 'lapses', 'lease', 'expires',
  'started', 'generation', 'suspect', 'asked', 'asked_error', 'asked_fingerprint', 'token',
  'worker', 'unique', 'line', 'keep_result', 'keep_failed',
}

local function load(id)
  local got = call('HMGET', P .. 'job:' .. id, unpack(FIELDS))
  if not got[1] then return nil end
  local job = { id = id }
  for index, field in ipairs(FIELDS) do
    local value = got[index]
    if value then job[field] = NUMBERS[field] and tonumber(value) or value end
  end
  job.attempts, job.lapses = job.attempts or 0, job.lapses or 0
  job.generation = job.generation or 1
  job.changed = {}
  return job
end

-- Change a field; nil removes it. `save` writes it.
local function set(job, field, value)
  job[field] = value
  if value == nil then
    job.changed[field] = false
  elseif type(value) == 'number' then
    job.changed[field] = digits(value)
  else
    job.changed[field] = value
  end
end

local function save(job)
  local puts, gone = {}, {}
  for field, value in pairs(job.changed) do
    if value then
      puts[#puts + 1] = field
      puts[#puts + 1] = value
    else
      gone[#gone + 1] = field
    end
  end
  if #puts > 0 then call('HSET', P .. 'job:' .. job.id, unpack(puts)) end
  if #gone > 0 then call('HDEL', P .. 'job:' .. job.id, unpack(gone)) end
  job.changed = {}
end

-- Within one score: by acceptance.
local function place(job)
  return string.format('%016.0f:', job.seq) .. job.id
end

local function id_of_place(member)
  return string.sub(member, 18)
end

-- Within one priority: by the instant at which it came due, then by acceptance.
local function rank(job)
  return string.format('%016.0f%016.0f:', job.due * 1000000, job.seq) .. job.id
end

local function id_of_rank(member)
  return string.sub(member, 34)
end

local function ready_key(job)
  return P .. (job.suspect and 'suspects' or 'ready')
end

local counted = {}

local function count(name, state, by)
  local field = state .. ':' .. name
  counted[field] = (counted[field] or 0) + by
end

-- Write what was counted.
local function flush_counts()
  for field, by in pairs(counted) do
    if by ~= 0 and call('HINCRBY', P .. 'counts', field, by) == 0 then
      call('HDEL', P .. 'counts', field)
    end
  end
  counted = {}
end

local function key_of(job)
  return job.name .. '\0' .. job.unique
end

local function enter(job, state)
  set(job, 'state', state)
  count(job.name, state, 1)
  if UNFINISHED[state] and job.unique then
    call('HSET', P .. 'unique', key_of(job), job.id)
  end
  if state == 'delayed' then
    call('ZADD', P .. 'delayed', digits(job.due), place(job))
  elseif state == 'pending' then
    local base, member = ready_key(job), rank(job)
    call('ZADD', base, job.priority, member)
    call('ZADD', base .. ':' .. job.name, job.priority, member)
  elseif state == 'processing' then
    call('ZADD', P .. 'leases', digits(job.lease), place(job))
  else
    call('ZADD', P .. 'ended', digits(job.expires), place(job))
  end
end

local function leave(job)
  local state = job.state
  count(job.name, state, -1)
  if UNFINISHED[state] and job.unique then call('HDEL', P .. 'unique', key_of(job)) end
  if state == 'delayed' then
    call('ZREM', P .. 'delayed', place(job))
  elseif state == 'pending' then
    local base, member = ready_key(job), rank(job)
    call('ZREM', base, member)
    call('ZREM', base .. ':' .. job.name, member)
  elseif state == 'processing' then
    call('ZREM', P .. 'leases', place(job))
    if job.asked then call('SREM', P .. 'asked:' .. job.worker, job.id) end
  else
    call('ZREM', P .. 'ended', place(job))
  end
end

-- The state of a job as every answer tells it.
local function state_of(state, due, now)
  if state == 'delayed' and tonumber(due) <= now then return 'pending' end
  return state
end

local function ripen(job, now)
  if state_of(job.state, job.due, now) ~= job.state then
    leave(job)
    enter(job, RULES['mature:delayed'].after)
    save(job)
  end
end

local function remove(job)
  leave(job)
  local id = job.id
  call('DEL', P .. 'job:' .. id, P .. 'errors:' .. id, P .. 'logs:' .. id)
  call('ZREM', P .. 'all', id)
  ends_told[#ends_told + 1] = id
end

local function take_note(job, note)
  if note.progress then
    set(job, 'progress', note.progress)
    set(job, 'progress_note', note.text)
  end
  local kept = 0
  for index, line in ipairs(note.numbers) do
    if not job.line or line > tonumber(job.line) then
      set(job, 'line', line)
      call('RPUSH', P .. 'logs:' .. job.id, note.lines[index])
      kept = kept + 1
    end
  end
  if kept > 0 then call('LTRIM', P .. 'logs:' .. job.id, -KEPT_LINES, -1) end
end

local function read_note()
  if take() == '' then return nil end
  local note = { progress = maybe(), text = maybe(), numbers = {}, lines = {} }
  for index = 1, number() do
    note.numbers[index] = number()
    note.lines[index] = take()
  end
  return note
end
