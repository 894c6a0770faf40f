-- with: prelude heads jobs rates
write_when_full()
local now = new_instant()
local limit = take()
local removed = 0
while removed < limit do
  local over = call('ZRANGEBYSCORE', P .. 'ended', '-inf', score_of(now), 'LIMIT', 0,
    math.min(500, limit - removed))
  if #over == 0 then break end
  for _, member in ipairs(over) do
    local job = load(id_of_place(member))
    if job then remove(job) else drop_rank('ended', member) end
    removed = removed + 1
  end
  write_ranks()
end
write_counts()
finish()

local function trim_events()
  for _ = 1, 20 do
    local some = call('ZRANGE', P .. 'events', 0, 499)
    local old = 0
    for _, text in ipairs(some) do
      if tonumber(string.match(text, '^%d+ (%S+)')) >= now - EVENTS_KEPT then break end
      old = old + 1
    end
    if old > 0 then call('ZREMRANGEBYRANK', P .. 'events', 0, old - 1) end
    if old < 500 then return end
  end
end

trim_events()
local function each_older(key, than, forget_one)
  for _, member in ipairs(call('ZRANGEBYSCORE', key, '-inf', than, 'LIMIT', 0, 1000)) do
    forget_one(member)
    call('ZREM', key, member)
  end
end
each_older(P .. 'minutes', '(' .. digits(now - BUCKETS_KEPT), function(minute)
  call('DEL', P .. 'minute:' .. minute)
end)
each_older(P .. 'groups', '(' .. digits(now - GROUPS_KEPT), function(fingerprint)
  call('DEL', P .. 'group:' .. fingerprint)
end)
each_older(P .. 'rates', digits(now), function(key)
  forget_old(P .. 'starts:' .. key, now)
  forget_old(P .. 'slots:' .. key, now)
end)
each_older(P .. 'waiting', digits(now), function() end)
return removed
