-- with: prelude heads
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

-- What changes jobs otherwise than by handing them out. It is made only where it is needed: the
-- claim of an idle worker that is woken needs none of it.
local function changing()
  -- here: jobs figures moving
  local function settle()
    local answers = apply_all(now)
    write_figures(now)
    return answers
  end
  return ripen, set, save, settle
end

local ripen, set, save, settle

local function be_able_to_change()
  if not settle then ripen, set, save, settle = changing() end
end

local moved = {}
if arguments[taken + 1] > 0 then
  be_able_to_change()
  moved = settle()
else
  take()
end
local lease_end = now + lease
local until_score, now_score = score_of(lease_end), score_of(now)

-- A job as its worker is told of it; wire.py reads the head.
local function answer(job, head, payload, policy)
  if job[MORE] == 0 then return { job.id, head, payload, policy } end
  return {
    job.id, head, payload, policy, job.unique or false, job.metadata or false, job.memo or false,
  }
end

local function whole_answer(job)
  local got = call('HMGET', job.key, 'head', 'payload', 'policy')
  return answer(job, unpack(got))
end

local function mature()
  local due = call('ZRANGEBYSCORE', P .. 'delayed', '-inf', now_score, 'LIMIT', '0', MATURE_LIMIT)
  if #due > 0 then be_able_to_change() end
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

-- The first `most` of the lanes of these names, in order.
local function first_of(base, names, most)
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

local function head_of_lanes(base, names)
  if not names then return some_of(P .. base, '0', '0')[1] end
  return first_of(base, names, 1)[1]
end

-- The members of the first `most`, where all names may be claimed without a merge.
local function first_members(base, names, most)
  if not names then return call('ZRANGE', P .. base, '0', most - 1) end
  local members = {}
  for index, each in ipairs(first_of(base, names, most)) do members[index] = each.member end
  return members
end

local function hand_out(base, member, claims)
  local id = id_of_rank(member)
  local key = P .. 'job:' .. id
  local got = call('HMGET', key, 'head', 'payload', 'policy')
  drop_rank(base, member)
  if not got[1] then return end
  local suspect, asked, took_over, more, due, enqueued, seq, priority, _, _, ended_at, expires,
    keep_result, keep_failed, attempts, lapses, generation, name, state = struct.unpack(HEAD, got[1])
  local head = struct.pack(HEAD, suspect, asked, took_over, more, due, enqueued, seq, priority, now,
    lease_end, ended_at, expires, keep_result, keep_failed, attempts + 1, lapses, generation, name,
    'processing', token, worker)
  call('HSET', key, 'head', head)
  drop_rank(lane_of(base, name), member)
  put_rank('leases', until_score, member)
  count(name, state, -1)
  count(name, 'processing', 1)
  got[1], got[2], got[3], got[4] = id, head, got[2], got[3]
  claims[#claims + 1] = more == 0 and got or answer(opened(id, key, head), unpack(got, 2))
end

local function claim(names)
  local claims = {}
  if limit < 1 then return claims end
  local suspect = head_of_lanes('suspects', names)
  if suspect and room ~= 'busy' then
    local other = head_of_lanes('ready', names)
    if room == 'alone' or not other or before(suspect, other) then
      hand_out('suspects', suspect.member, claims)
      return claims
    end
  end
  for _, member in ipairs(first_members('ready', names, limit)) do
    hand_out('ready', member, claims)
  end
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
  if told_now then return now_score end
  local still = call('HMGET', META, 'still_from', 'still_to')
  if still[2] and now < tonumber(still[2]) + RENEW_FIRST then return score_of(tonumber(still[1])) end
  return now_score
end

local function take_over()
  local lapsed = {}
  local over = call(
    'ZRANGEBYSCORE', P .. 'leases', '-inf', over_until(), 'LIMIT', '0', TAKEOVER_LIMIT
  )
  if #over > 0 then be_able_to_change() end
  for _, member in ipairs(over) do
    local job = load(id_of_rank(member))
    if job then
      if job[ASKED] == 1 then
        call('SMOVE', P .. 'asked:' .. job[WORKER], P .. 'asked:' .. worker, job.id)
      end
      job[TOKEN] = token
      job[WORKER] = worker
      job[LEASE] = now + lease
      job[TAKEN] = 1
      set(job, 'line', nil)
      save(job)
      put_rank('leases', until_score, member)
      lapsed[#lapsed + 1] = whole_answer(job)
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
      local job = load(id_of_rank(member))
      if job and job[TOKEN] == token then
        held[#held + 1] = { job = job, priority = job[PRIORITY], member = member }
      end
    end
    from = from + 500
  until #some < 500
  table.sort(held, before)
  local lapsed, claims = {}, {}
  for _, each in ipairs(held) do
    local list = each.job[TAKEN] == 1 and lapsed or claims
    list[#list + 1] = whole_answer(each.job)
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
finish()
local asked = {}
for index, id in ipairs(call('SMEMBERS', P .. 'asked:' .. worker)) do
  local job = load(id)
  asked[index] = { id, job and job[TOKEN] or false }
end
local first = call('ZRANGE', P .. 'delayed', '0', '0')[1]
local coming = first and load(id_of_place(first))
return {
  digits(now), claims, lapsed, moved, coming and digits(coming[DUE]) or false, suspect_waits(names), asked,
  call('HGET', META, 'heed'),
}
