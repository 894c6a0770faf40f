-- with: prelude jobs figures moving
write_when_full()
local told_now = arguments[1]
local now = new_instant()
local worker, token, limit, lease = take(), take(), take(), take()
local room, again = take(), take()
local wanted = nil
local named = take()
if named then
  wanted = {}
  for index = 1, named do wanted[index] = take() end
end
local moved = apply_all(now)
local until_text, now_text = digits(now + lease), digits(now)

local ANSWER = {
  'name', 'payload', 'policy', 'token', 'attempts', 'lapses', 'priority', 'enqueued', 'due',
  'started', 'suspect', 'asked', 'unique', 'metadata', 'memo',
}

local function answer(id)
  local got = call('HMGET', P .. 'job:' .. id, unpack(ANSWER))
  table.insert(got, 1, id)
  return got
end

local function mature()
  local due = call('ZRANGEBYSCORE', P .. 'delayed', '-inf', now_text, 'LIMIT', 0, MATURE_LIMIT)
  for _, member in ipairs(due) do
    local job = load(id_of_place(member))
    if job then ripen(job, now) end
  end
end

-- The names that may be claimed; nil where all may.
local function open_names()
  local paused = {}
  local pauses = call('HKEYS', P .. 'docs:pauses')
  for _, key in ipairs(pauses) do
    if key == '*' then return {} end
    paused[key] = true
  end
  local among = wanted
  if not among then
    if #pauses == 0 then return nil end
    among = {}
    for _, field in ipairs(call('HKEYS', P .. 'counts')) do
      local name = string.match(field, '^pending:(.*)$')
      if name then among[#among + 1] = name end
    end
  end
  local open, seen = {}, {}
  for _, name in ipairs(among) do
    if not paused['job:' .. name] and not seen[name] then open[#open + 1] = name end
    seen[name] = true
  end
  return open
end

local function before(one, other)
  if one.priority ~= other.priority then return one.priority < other.priority end
  return one.member < other.member
end

local function some_of(key, from, to)
  local got, some = call('ZRANGE', key, from, to, 'WITHSCORES'), {}
  for index = 1, #got, 2 do
    some[#some + 1] = { member = got[index], priority = tonumber(got[index + 1]) }
  end
  return some
end

-- The first `most` of the lanes of these names, or of all, in order.
local function first_of(base, names, most)
  if not names then return some_of(P .. base, 0, most - 1) end
  local each = math.max(4, math.ceil(most / math.max(1, #names)))
  local lanes, found = {}, {}
  for _, name in ipairs(names) do
    local key = P .. base .. ':' .. name
    local some = some_of(key, 0, each - 1)
    if #some > 0 then lanes[#lanes + 1] = { key = key, some = some, at = 1, read = #some } end
  end
  while #found < most and #lanes > 0 do
    local best = 1
    for index = 2, #lanes do
      local one, other = lanes[index], lanes[best]
      if before(one.some[one.at], other.some[other.at]) then best = index end
    end
    local lane = lanes[best]
    found[#found + 1] = lane.some[lane.at]
    lane.at = lane.at + 1
    if lane.at > #lane.some then
      lane.some = some_of(lane.key, lane.read, lane.read + each - 1)
      lane.read, lane.at = lane.read + #lane.some, 1
      if #lane.some == 0 then table.remove(lanes, best) end
    end
  end
  return found
end

local function hand_out(base, member, claims)
  local id = id_of_rank(member)
  local got = answer(id)
  drop_rank(P .. base, member)
  if not got[2] then return end
  local attempts = tonumber(got[6] or 0) + 1
  drop_rank(P .. base .. ':' .. got[2], member)
  put_rank(P .. 'leases', until_text, string.sub(member, 17))
  call('HSET', P .. 'job:' .. id, 'state', 'processing', 'token', token, 'worker', worker,
    'lease', until_text, 'attempts', attempts, 'started', now_text)
  got[5], got[6], got[11] = token, tostring(attempts), now_text
  count(got[2], 'pending', -1)
  count(got[2], 'processing', 1)
  claims[#claims + 1] = got
end

local function claim(names)
  local claims = {}
  if limit < 1 then return claims end
  local suspect = first_of('suspects', names, 1)[1]
  local others = first_of('ready', names, limit)
  local its_turn = room == 'alone' or not others[1]
    or (suspect and before(suspect, others[1]))
  if suspect and its_turn and room ~= 'busy' then
    hand_out('suspects', suspect.member, claims)
    return claims
  end
  for _, other in ipairs(others) do hand_out('ready', other.member, claims) end
  return claims
end

local function suspect_waits(names)
  if not names then return call('EXISTS', P .. 'suspects') end
  for _, name in ipairs(names) do
    if call('EXISTS', P .. 'suspects:' .. name) == 1 then return 1 end
  end
  return 0
end

-- The instant until which leases must have run out to be taken over. A server that stood still
-- finds all of them run out when it goes on, and calls that nobody waits for any more among the
-- first: so whoever lives gets a second to renew what ran out while nobody called.
local RENEW_FIRST = 1
local function over_until()
  if told_now then return digits(now) end
  local still = call('HMGET', META, 'still_from', 'still_to')
  if still[2] and now < tonumber(still[2]) + RENEW_FIRST then return still[1] end
  return digits(now)
end

local function take_over()
  local lapsed = {}
  local over = call(
    'ZRANGEBYSCORE', P .. 'leases', '-inf', over_until(), 'LIMIT', 0, TAKEOVER_LIMIT
  )
  for _, member in ipairs(over) do
    local job = load(id_of_place(member))
    if job then
      if job.asked then
        call('SMOVE', P .. 'asked:' .. job.worker, P .. 'asked:' .. worker, job.id)
      end
      set(job, 'token', token)
      set(job, 'worker', worker)
      set(job, 'lease', now + lease)
      set(job, 'taken', '1')
      clear(job, 'line')
      save(job)
      put_rank(P .. 'leases', until_text, member)
      lapsed[#lapsed + 1] = answer(job.id)
    end
  end
  return lapsed
end

-- What holds the token: taken over, and claimed.
local function collect()
  local held = {}
  local from = 0
  repeat
    local some = call('ZRANGE', P .. 'leases', from, from + 499)
    for _, member in ipairs(some) do
      local id = id_of_place(member)
      local got = call('HMGET', P .. 'job:' .. id, 'token', 'priority', 'due', 'seq', 'taken')
      if got[1] == token then
        local job = { id = id, due = tonumber(got[3]), seq = tonumber(got[4]) }
        held[#held + 1] = {
          id = id, priority = tonumber(got[2]), member = rank(job), taken = got[5],
        }
      end
    end
    from = from + 500
  until #some < 500
  table.sort(held, before)
  local lapsed, claims = {}, {}
  for _, job in ipairs(held) do
    local list = job.taken and lapsed or claims
    list[#list + 1] = answer(job.id)
  end
  return lapsed, claims
end

write_ranks()
mature()
write_counts()
write_ranks()
local names = open_names()
local lapsed, claims
if again then
  lapsed, claims = collect()
else
  lapsed, claims = take_over(), claim(names)
end
write_counts()
write_figures(now)
finish()
local asked = {}
for index, id in ipairs(call('SMEMBERS', P .. 'asked:' .. worker)) do
  asked[index] = { id, call('HGET', P .. 'job:' .. id, 'token') }
end
local coming = call('ZRANGE', P .. 'delayed', 0, 0, 'WITHSCORES')
return {
  now_text, claims, lapsed, moved, coming[2] or false, suspect_waits(names), asked,
  call('HGET', META, 'heed'),
}
