-- One job as it changes: its hash, and the one place where it stands by its state.

local function head_of(job)
  return struct.pack(HEAD, unpack(job, 1, HEAD_FIELDS))
end

-- Have `save` write a field beside the head, or take it away where the value is nil.
local function put(job, field, value)
  local changed = job.changed
  if not changed then
    changed = {}
    job.changed = changed
  end
  if value == nil then value = false end
  changed[field] = value
end

-- Give one of the fields that few jobs have another value, or none where it is nil.
local function set(job, field, value)
  if value == nil and job[MORE] == 0 then return end
  job[MORE] = 1
  job[field] = value
  put(job, field, value)
end

-- The head as it is written.
local function save(job)
  local key, head, changed = job.key, head_of(job), job.changed
  if not changed then
    call('HSET', key, 'head', head)
    return head
  end
  local puts, gone = { 'head', head }, {}
  for field, value in pairs(changed) do
    if value then
      puts[#puts + 1] = field
      puts[#puts + 1] = type(value) == 'number' and digits(value) or value
    else
      gone[#gone + 1] = field
    end
  end
  call('HSET', key, unpack(puts))
  if #gone > 0 then call('HDEL', key, unpack(gone)) end
  job.changed = nil
  return head
end

local function place(job)
  return place_of(job[SEQ], job.id)
end

local function rank(job)
  return rank_of(job[DUE], job[SEQ], job.id)
end

local function ready_of(job)
  return job[SUSPECT] == 1 and 'suspects' or 'ready'
end

-- The states whose jobs also stand in a set of their own, by acceptance: those that people look for
-- among very many that ended well.
local LISTED = { failed = true, cancelled = true }

local function enter(job, state)
  job[STATE] = state
  count(job[NAME], state, 1)
  if job.unique and UNFINISHED[state] then
    call('HSET', P .. 'unique', key_of(job[NAME], job.unique), job.id)
  end
  if state == 'delayed' then
    put_rank('delayed', score_of(job[DUE]), place(job))
  elseif state == 'pending' then
    line_up(ready_of(job), job[NAME], job[PRIORITY], rank(job))
  elseif state == 'processing' then
    put_rank('leases', score_of(job[LEASE]), rank(job))
  else
    put_rank('ended', score_of(job[EXPIRES]), place(job))
    if LISTED[state] then put_rank(state, job[SEQ], job.id) end
  end
end

local function leave(job)
  local state = job[STATE]
  count(job[NAME], state, -1)
  if job.unique and UNFINISHED[state] then call('HDEL', P .. 'unique', key_of(job[NAME], job.unique)) end
  if state == 'delayed' then
    drop_rank('delayed', place(job))
  elseif state == 'pending' then
    local base, member = ready_of(job), rank(job)
    drop_rank(base, member)
    drop_rank(lane_of(base, job[NAME]), member)
  elseif state == 'processing' then
    drop_rank('leases', rank(job))
    if job[ASKED] == 1 then call('SREM', P .. 'asked:' .. job[WORKER], job.id) end
  else
    drop_rank('ended', place(job))
    if LISTED[state] then drop_rank(state, job.id) end
  end
end

-- The state of a job as every answer tells it.
local function state_of(job, now)
  if job[STATE] == 'delayed' and job[DUE] <= now then return 'pending' end
  return job[STATE]
end

local function ripen(job, now)
  if state_of(job, now) ~= job[STATE] then
    leave(job)
    enter(job, 'pending')
    save(job)
  end
end

local function remove(job)
  leave(job)
  local id = job.id
  call('DEL', job.key, P .. 'errors:' .. id, P .. 'logs:' .. id)
  drop_rank('all', id)
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
  if not take() then return nil end
  local note = { progress = take(), text = take(), numbers = {}, lines = {} }
  for index = 1, take() do
    note.numbers[index] = take()
    note.lines[index] = take()
  end
  return note
end
