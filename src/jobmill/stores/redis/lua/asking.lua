-- Which jobs a query means.

local function read_query()
  local query = { name = maybe(), unique = maybe(), fingerprint = maybe() }
  local states = number()
  if states >= 0 then
    query.states = {}
    for _ = 1, states do query.states[take()] = true end
  end
  return query
end

-- Whether a job that is there matches; and its state and name.
local function matches(id, query, now)
  local got = call('HMGET', P .. 'job:' .. id, 'name', 'state', 'due', 'unique', 'fingerprint')
  if not got[1] then return false end
  local state = state_of(got[2], got[3], now)
  local found = (not query.states or query.states[state] ~= nil)
    and (not query.name or got[1] == query.name)
    and (not query.unique or got[4] == query.unique)
    and (not query.fingerprint or got[5] == query.fingerprint)
  return found, state, got[1], got[3]
end

local function record(id, now)
  local key = P .. 'job:' .. id
  local fields = call('HGETALL', key)
  if #fields == 0 then return false end
  local state, due
  for index = 1, #fields, 2 do
    if fields[index] == 'state' then state = fields[index + 1] end
    if fields[index] == 'due' then due = fields[index + 1] end
  end
  return {
    id, state_of(state, due, now), fields,
    call('LRANGE', P .. 'errors:' .. id, 0, -1), call('LRANGE', P .. 'logs:' .. id, 0, -1),
  }
end
