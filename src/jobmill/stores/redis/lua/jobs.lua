-- One job: its hash, and the one place where it stands by its state.

local counted = {}

local function count(name, state, by)
  local field = state .. ':' .. name
  counted[field] = (counted[field] or 0) + by
end

-- Write what was counted.
local function write_counts()
  for field, by in pairs(counted) do
    if by ~= 0 and call('HINCRBY', P .. 'counts', field, by) == 0 then
      call('HDEL', P .. 'counts', field)
    end
  end
  counted = {}
end

local function number_or(value, otherwise)
  return value and tonumber(value) or otherwise
end

local function load(id)
  local got = call('HMGET', P .. 'job:' .. id, 'name', 'state', 'due', 'seq', 'priority',
    'attempts', 'lapses', 'generation', 'expires', 'started', 'token', 'worker', 'suspect',
    'asked', 'asked_error', 'asked_fingerprint', 'taken', 'line', 'memo', 'unique',
    'keep_result', 'keep_failed', 'fingerprint', 'lease')
  if not got[1] then return nil end
  return {
    id = id,
    name = got[1],
    state = got[2],
    due = tonumber(got[3]),
    seq = tonumber(got[4]),
    priority = tonumber(got[5]),
    attempts = number_or(got[6], 0),
    lapses = number_or(got[7], 0),
    generation = number_or(got[8], 1),
    expires = number_or(got[9]),
    started = number_or(got[10]),
    token = got[11] or nil,
    worker = got[12] or nil,
    suspect = got[13] or nil,
    asked = got[14] or nil,
    asked_error = got[15] or nil,
    asked_fingerprint = got[16] or nil,
    taken = got[17] or nil,
    line = got[18] or nil,
    memo = got[19] or nil,
    unique = got[20] or nil,
    keep_result = got[21],
    keep_failed = got[22],
    fingerprint = got[23] or nil,
    lease = number_or(got[24]),
    changed = {},
  }
end

-- Give a field another value. `save` writes it.
local function set(job, field, value)
  job[field] = value
  if type(value) == 'number' then value = digits(value) end
  job.changed[field] = value
end

-- Take a field away, also one that `load` does not read.
local function forget(job, field)
  job[field] = nil
  job.changed[field] = false
end

-- Take a field away where the job has it.
local function clear(job, field)
  if job[field] ~= nil then forget(job, field) end
end

local function set_or_clear(job, field, value)
  if value == nil then clear(job, field) else set(job, field, value) end
end

local function save(job)
  local key, puts, gone = P .. 'job:' .. job.id, {}, {}
  for field, value in pairs(job.changed) do
    if value then
      puts[#puts + 1] = field
      puts[#puts + 1] = value
    else
      gone[#gone + 1] = field
    end
  end
  if #puts > 0 then call('HSET', key, unpack(puts)) end
  if #gone > 0 then call('HDEL', key, unpack(gone)) end
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

local function key_of(job)
  return job.name .. '\0' .. job.unique
end

-- The states whose jobs also stand in a set of their own, by acceptance: those that people look for
-- among very many that ended well.
local LISTED = { failed = true, cancelled = true }

local function enter(job, state)
  set(job, 'state', state)
  count(job.name, state, 1)
  if job.unique and UNFINISHED[state] then
    call('HSET', P .. 'unique', key_of(job), job.id)
  end
  if state == 'delayed' then
    put_rank(P .. 'delayed', digits(job.due), place(job))
  elseif state == 'pending' then
    local base, member = ready_key(job), rank(job)
    put_rank(base, job.priority, member)
    put_rank(base .. ':' .. job.name, job.priority, member)
  elseif state == 'processing' then
    put_rank(P .. 'leases', digits(job.lease), place(job))
  else
    put_rank(P .. 'ended', digits(job.expires), place(job))
    if LISTED[state] then put_rank(P .. state, string.format('%.0f', job.seq), job.id) end
  end
end

local function leave(job)
  local state = job.state
  count(job.name, state, -1)
  if job.unique and UNFINISHED[state] then call('HDEL', P .. 'unique', key_of(job)) end
  if state == 'delayed' then
    drop_rank(P .. 'delayed', place(job))
  elseif state == 'pending' then
    local base, member = ready_key(job), rank(job)
    drop_rank(base, member)
    drop_rank(base .. ':' .. job.name, member)
  elseif state == 'processing' then
    drop_rank(P .. 'leases', place(job))
    if job.asked then call('SREM', P .. 'asked:' .. job.worker, job.id) end
  else
    drop_rank(P .. 'ended', place(job))
    if LISTED[state] then drop_rank(P .. state, job.id) end
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
  drop_rank(P .. 'all', id)
  ends_told[#ends_told + 1] = id
end

local function take_note(job, note)
  if note.progress then
    set(job, 'progress', note.progress)
    forget(job, 'progress_note')
    if note.text then set(job, 'progress_note', note.text) end
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
  if not take() then return nil end
  local note = { progress = take(), text = take(), numbers = {}, lines = {} }
  for index = 1, take() do
    note.numbers[index] = take()
    note.lines[index] = take()
  end
  return note
end
