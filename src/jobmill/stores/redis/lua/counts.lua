-- with: prelude heads jobs asking
-- From the counters, the heads of the lanes, and what is delayed and due; by a look at all jobs only
-- where the query has a unique key or a fingerprint. Looks at SCAN_LIMIT jobs at most; says where it
-- stopped.
local now = instant()
local query = read_query()
local cursor = take()
local numbers = {}
local oldest = nil
local looked = 0

local function plus(state, name, by)
  local field = state .. ':' .. name
  numbers[field] = (numbers[field] or 0) + by
end

local function older(due)
  if not oldest or due < oldest then oldest = due end
end

local function wants(state)
  return not query.states or query.states[state]
end

local function as_counted()
  local all = call('HGETALL', P .. 'counts')
  for index = 1, #all, 2 do
    local state, name = string.match(all[index], '^(%a+):(.*)$')
    if not query.name or query.name == name then plus(state, name, tonumber(all[index + 1])) end
  end
end

-- The oldest of a lane stands at the head of one of its priorities.
local function look_at_heads(key, from)
  while looked < SCAN_LIMIT do
    local got = call('ZRANGEBYSCORE', key, from, '+inf', 'WITHSCORES', 'LIMIT', 0, 1)
    if #got == 0 then return nil end
    local job = load(id_of_rank(got[1]))
    if job then older(job[DUE]) end
    from = '(' .. got[2]
    looked = looked + 1
  end
  return from
end

-- What is delayed and due is told as pending. By places, since very many may be due at one instant.
local function look_at_due(from)
  local many = call('ZCOUNT', P .. 'delayed', '-inf', score_of(now))
  while from < many do
    if looked >= SCAN_LIMIT then return string.format('%.0f', from) end
    local some = call('ZRANGE', P .. 'delayed', from, math.min(from + 499, many - 1))
    for _, member in ipairs(some) do
      local head = call('HGET', P .. 'job:' .. id_of_place(member), 'head')
      local job = head and { struct.unpack(HEAD, head) }
      if job and (not query.name or query.name == job[NAME]) then
        plus('delayed', job[NAME], -1)
        plus('pending', job[NAME], 1)
        older(job[DUE])
      end
    end
    from = from + #some
    looked = looked + #some
  end
  return nil
end

local LANES = { 'ready', 'suspects' }

local function by_index()
  local lane, from = string.match(cursor, '^(%d) (.*)$')
  if lane then
    lane = tonumber(lane)
  else
    as_counted()
    lane, from = 1, '-inf'
  end
  while LANES[lane] and wants('pending') do
    from = look_at_heads(P .. LANES[lane] .. (query.name and ':' .. query.name or ''), from)
    if from then return lane .. ' ' .. from end
    lane, from = lane + 1, '-inf'
  end
  if not wants('pending') and not wants('delayed') then return nil end
  from = look_at_due(tonumber(from == '-inf' and 0 or from))
  return from and string.format('%d %s', #LANES + 1, from)
end

local function by_look()
  local list = list_of(query)
  while looked < SCAN_LIMIT do
    local some = call('ZRANGEBYSCORE', list, cursor, '+inf', 'WITHSCORES', 'LIMIT', 0, 100)
    if #some == 0 then return nil end
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
if not wants('pending') then oldest = nil end
local flat = {}
for field, many in pairs(numbers) do
  if many ~= 0 and wants(string.match(field, '^%a+')) then
    flat[#flat + 1] = field
    flat[#flat + 1] = many
  end
end
return { digits(now), flat, oldest and digits(oldest) or false, goes_on or false }
