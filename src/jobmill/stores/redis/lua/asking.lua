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

-- The only state of a query; nil where it has none, or several.
local function only_state(query)
  local only = nil
  for state in pairs(query.states or {}) do
    if only then return nil end
    only = state
  end
  return only
end

-- The set, by acceptance, that has all that a query can mean. What an earlier release wrote
-- is in no set of its own state: where that shows, it is the set of all.
local function list_of(query)
  local state = only_state(query)
  if not LISTED[state] then return P .. 'all' end
  local there, counts = 0, call('HGETALL', P .. 'counts')
  for index = 1, #counts, 2 do
    if string.match(counts[index], '^%a+') == state then
      there = there + tonumber(counts[index + 1])
    end
  end
  if there ~= call('ZCARD', P .. state) then return P .. 'all' end
  return P .. state
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
    if state == 'processing' then sets['leases'] = 1 end
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
