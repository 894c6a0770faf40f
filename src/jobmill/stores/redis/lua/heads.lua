-- One job as it is read, and the names of where it stands.
--
-- What every step of a job reads and writes is one field of the hash, `head`, so that a step costs
-- one command to read it and one to write it. Here a job is the list of what its head has, in the
-- order of head.py, whose names stand for the places in it: job[DUE]. Payload, policy, result and
-- what few jobs have are fields beside the head; MORE is 1 where it has, or had, any of the few.

local FEW = {
  'unique', 'metadata', 'memo', 'line', 'asked_error', 'asked_fingerprint', 'fingerprint',
}

local counted = {}

local function count(name, state, by)
  local states = counted[name]
  if not states then
    states = {}
    counted[name] = states
  end
  states[state] = (states[state] or 0) + by
end

-- Write what was counted.
local function write_counts()
  for name, states in pairs(counted) do
    for state, by in pairs(states) do
      local field = state .. ':' .. name
      if by ~= 0 and call('HINCRBY', P .. 'counts', field, by) == 0 then
        call('HDEL', P .. 'counts', field)
      end
    end
  end
  counted = {}
end

-- The job of a head.
local function opened(id, key, head)
  local job = { struct.unpack(HEAD, head) }
  job.id, job.key = id, key
  if job[MORE] == 1 then
    local got = call('HMGET', key, unpack(FEW))
    for index, field in ipairs(FEW) do job[field] = got[index] or nil end
  end
  return job
end

local function load(id)
  local key = P .. 'job:' .. id
  local head = call('HGET', key, 'head')
  return head and opened(id, key, head) or nil
end

-- Within one score: by acceptance.
local function place_of(seq, id)
  return seq .. ':' .. id
end

local function id_of_place(member)
  return string.sub(member, 18)
end

local last_due, due_text = nil, nil

-- Within one score: by the instant at which it came due, then by acceptance. The jobs that run stand
-- by it, too: the server keeps a set of so long members in order, also where they are few; one of
-- shorter members it would search from end to end.
local function rank_of(due, seq, id)
  if due ~= last_due then
    last_due, due_text = due, string.format('%016.0f', due * 1000000)
  end
  return due_text .. seq .. ':' .. id
end

local function id_of_rank(member)
  return string.sub(member, 34)
end

local lanes = {}

-- The name of the lane of one job's name.
local function lane_of(base, name)
  local of = lanes[base]
  if not of then
    of = {}
    lanes[base] = of
  end
  local lane = of[name]
  if not lane then
    lane = base .. ':' .. name
    of[name] = lane
  end
  return lane
end

local function key_of(name, unique)
  return name .. '\0' .. unique
end

-- Have a job that waits stand where it is claimed from.
local function line_up(base, name, priority, member)
  local score = digits(priority)
  put_rank(base, score, member)
  put_rank(lane_of(base, name), score, member)
end
