-- New jobs. One is known by the place `at` where its arguments begin, because a table for each costs
-- more than a command does: its id, name, payload, policy, keep_result, keep_failed and priority,
-- and whether its delay, instant, unique key and metadata follow.

local function after_job(at)
  return at + (arguments[at + 7] and 12 or 8)
end

local function unique_of(at)
  return arguments[at + 7] and arguments[at + 10] or nil
end

-- What becomes of a job, and who holds its key.
local function look(at, fresh, holders)
  local id, name, payload = arguments[at], arguments[at + 1], arguments[at + 2]
  local there_name, there_payload
  local there = fresh[id]
  if there then
    there_name, there_payload = arguments[there + 1], arguments[there + 2]
  else
    local job = load(id)
    if job then there_name, there_payload = job[NAME], call('HGET', job.key, 'payload') end
  end
  if there_name then
    local same = there_name == name and there_payload == payload
    return same and 'same' or 'conflict'
  end
  local unique = unique_of(at)
  if unique then
    local key = key_of(name, unique)
    local holder = holders[key] or call('HGET', P .. 'unique', key)
    if holder then return 'held', holder end
    holders[key] = id
  end
  fresh[id] = at
  return 'added'
end

local function store(at, now)
  local id, name, priority = arguments[at], arguments[at + 1], arguments[at + 6]
  local key, seq, due = P .. 'job:' .. id, sixteen(next_number('seq')), now
  local few, state = arguments[at + 7], 'pending'
  if few then
    local delay, run_at = arguments[at + 8], arguments[at + 9]
    if delay then run_at = now + delay end
    if run_at and run_at > now then due, state = run_at, 'delayed' end
  end
  call('HSET', key, 'head', struct.pack(HEAD, 0, 0, 0, few and 1 or 0, due, now, seq, priority,
    NEVER, NEVER, NEVER, NEVER, arguments[at + 4], arguments[at + 5], 0, 0, 1, name, state, '', ''),
    'payload', arguments[at + 2], 'policy', arguments[at + 3])
  if few then
    local unique, metadata = arguments[at + 10], arguments[at + 11]
    if unique then
      call('HSET', key, 'unique', unique)
      call('HSET', P .. 'unique', key_of(name, unique), id)
    end
    if metadata then call('HSET', key, 'metadata', metadata) end
  end
  count(name, state, 1)
  if state == 'delayed' then
    put_rank('delayed', score_of(due), place_of(seq, id))
  else
    line_up('ready', name, priority, rank_of(due, seq, id))
  end
  put_rank('all', seq, id)
end

-- Store jobs; an answer for each. With `whole`, nothing where one is a conflict.
local function add_all(whole, now)
  local fresh, holders, places, answers, held_by = {}, {}, {}, {}, {}
  local conflict, added = false, false
  local jobs = take()
  local at = taken + 1
  for index = 1, jobs do
    places[index] = at
    answers[index], held_by[index] = look(at, fresh, holders)
    conflict = conflict or answers[index] == 'conflict'
    at = after_job(at)
  end
  taken = at - 1
  local keep = not (whole and conflict)
  for index = 1, jobs do
    local answer, holder = answers[index], held_by[index]
    if keep and answer == 'added' then
      store(places[index], now)
      added = true
    elseif not keep and answer ~= 'conflict' and fresh[holder or arguments[places[index]]] then
      answers[index] = 'dropped'
    elseif holder then
      answers[index] = { answer, holder }
    end
  end
  write_counts()
  return answers, added
end
