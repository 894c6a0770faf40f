-- with: prelude heads jobs asking
-- From the counters and the heads of the lanes; by a look at the jobs only where the query
-- has a unique key or a fingerprint, then at SCAN_LIMIT of them at most.
local now = instant()
local query = read_query()
local cursor = take()
local numbers = {}
local oldest = nil

local function plus(state, name, by)
  local field = state .. ':' .. name
  numbers[field] = (numbers[field] or 0) + by
end

local function older(due)
  if not oldest or due < oldest then oldest = due end
end

-- The oldest of a lane: at the head of one of its priorities.
local function oldest_of(key)
  local from = '-inf'
  while true do
    local got = call('ZRANGEBYSCORE', key, from, '+inf', 'WITHSCORES', 'LIMIT', 0, 1)
    if #got == 0 then return end
    older(load(id_of_rank(got[1]))[DUE])
    from = '(' .. got[2]
  end
end

local function by_index()
  local all = call('HGETALL', P .. 'counts')
  for index = 1, #all, 2 do
    local state, name = string.match(all[index], '^(%a+):(.*)$')
    if not query.name or query.name == name then plus(state, name, tonumber(all[index + 1])) end
  end
  local lane = query.name and ':' .. query.name or ''
  oldest_of(P .. 'ready' .. lane)
  oldest_of(P .. 'suspects' .. lane)
  local from = 0
  repeat
    local due = call('ZRANGEBYSCORE', P .. 'delayed', '-inf', score_of(now), 'LIMIT', from, 500)
    for _, member in ipairs(due) do
      local job = load(id_of_place(member))
      if not query.name or query.name == job[NAME] then
        plus('delayed', job[NAME], -1)
        plus('pending', job[NAME], 1)
        older(job[DUE])
      end
    end
    from = from + 500
  until #due < 500
  if query.states then
    for field in pairs(numbers) do
      if not query.states[string.match(field, '^%a+')] then numbers[field] = nil end
    end
    if not query.states.pending then oldest = nil end
  end
  return false
end

local function by_look()
  local looked, list = 0, list_of(query)
  while looked < SCAN_LIMIT do
    local some = call('ZRANGEBYSCORE', list, cursor, '+inf', 'WITHSCORES', 'LIMIT', 0, 100)
    if #some == 0 then return false end
    for index = 1, #some, 2 do
      local found, state, job = matches(some[index], query, now)
      if found then
        plus(state, job[NAME], 1)
        if state == 'pending' then older(job[DUE]) end
      end
      cursor = '(' .. string.format('%.0f', tonumber(some[index + 1]))
      looked = looked + 1
    end
  end
  return cursor
end

local goes_on
if query.unique or query.fingerprint then goes_on = by_look() else goes_on = by_index() end
local flat = {}
for field, many in pairs(numbers) do
  if many ~= 0 then
    flat[#flat + 1] = field
    flat[#flat + 1] = many
  end
end
return { digits(now), flat, oldest and digits(oldest) or false, goes_on }
