-- Which jobs a query means.

local function read_query()
  local query = { name = take(), unique = take(), fingerprint = take() }
  local states = take()
  if states then
    query.states = {}
    for _ = 1, states do query.states[take()] = true end
  end
  return query
end

-- Whether a job matches; its state; and the job, where it is there.
local function matches(id, query, now)
  local job = load(id)
  if not job then return false end
  local state = state_of(job, now)
  local found = (not query.states or query.states[state] ~= nil)
    and (not query.name or job[NAME] == query.name)
    and (not query.unique or job.unique == query.unique)
    and (not query.fingerprint or job.fingerprint == query.fingerprint)
  return found, state, job
end

-- The only state of a query; nil where it has none, or several.
local function only_state(query)
  local only = nil
  for state in pairs(query.states or {}) do
    if only then return nil end
    only = state
  end
  return only
end

-- The set, by acceptance, that has all that a query can mean.
local function list_of(query)
  local state = only_state(query)
  return P .. (LISTED[state] and state or 'all')
end

-- All jobs that a query can mean, the last accepted first, where those of its states stand in
-- sets of their own and are few: pairs of number and id. nil where they may be many.
local function few(query)
  if not query.states then return nil end
  local sets = {}
  for state in pairs(query.states) do
    if not UNFINISHED[state] then return nil end
    -- What is delayed and due is told as pending.
    if state ~= 'processing' then sets['delayed'] = 1 end
    if state == 'processing' then sets['leases'] = 17 end
    if state == 'pending' then
      sets['ready'] = 17
      sets['suspects'] = 17
    end
  end
  local total = 0
  for name in pairs(sets) do total = total + call('ZCARD', P .. name) end
  if total > SCAN_LIMIT then return nil end
  local found = {}
  for name, from in pairs(sets) do
    for _, member in ipairs(call('ZRANGE', P .. name, 0, -1)) do
      found[#found + 1] = {
        tonumber(string.sub(member, from, from + 15)), string.sub(member, from + 17),
      }
    end
  end
  table.sort(found, function(one, other) return one[1] > other[1] end)
  return found
end

local function record(id, now)
  local key = P .. 'job:' .. id
  local fields = call('HGETALL', key)
  if #fields == 0 then return false end
  local job = load(id)
  return {
    id, state_of(job, now), fields,
    call('LRANGE', P .. 'errors:' .. id, 0, -1), call('LRANGE', P .. 'logs:' .. id, 0, -1),
  }
end
