-- with: prelude rates
write_when_full()
local now = new_instant()
local key, id, token = take(), take(), take()
local windows, longest = {}, 0
for index = 1, take() do
  windows[index] = { limit = take(), seconds = take() }
  longest = math.max(longest, windows[index].seconds)
end
local STARTS, SLOTS = P .. 'starts:' .. key, P .. 'slots:' .. key

-- The `place`-th of a set from its end, counted from 1; nil where it is not there.
local function from_end(set, place)
  local got = call('ZREVRANGE', set, place - 1, place - 1, 'WITHSCORES')
  return got[2] and tonumber(got[2])
end

-- The `place`-th of the starts and slots together, from the end.
local function from_end_of_both(place)
  local starts, slots = call('ZCARD', STARTS), call('ZCARD', SLOTS)
  if starts + slots < place then return nil end
  local low, high = math.max(0, place - slots), math.min(place, starts)
  while true do
    local some = math.floor((low + high) / 2)
    local rest = place - some
    local last_start = some > 0 and from_end(STARTS, some) or math.huge
    local last_slot = rest > 0 and from_end(SLOTS, rest) or math.huge
    local next_start = some < starts and from_end(STARTS, some + 1) or -math.huge
    local next_slot = rest < slots and from_end(SLOTS, rest + 1) or -math.huge
    if some < high and last_slot < next_start then
      low = some + 1
    elseif some > low and last_start < next_slot then
      high = some - 1
    else
      return math.min(last_start, last_slot)
    end
  end
end

local function earliest(with_slots, slack)
  local at = now
  for _, window in ipairs(windows) do
    local last
    if with_slots then
      last = from_end_of_both(window.limit)
    else
      last = from_end(STARTS, window.limit)
    end
    if last then at = math.max(at, last + window.seconds + slack) end
  end
  return at
end

forget_old(STARTS, now)
forget_old(SLOTS, now)
local start = id .. '\0' .. token
if #windows == 0 then
  -- The start is given back.
  call('ZREM', STARTS, start)
  call('ZREM', STARTS .. ':until', start)
  return '0'
end
if call('ZSCORE', STARTS, start) then return '0' end
local own = tonumber(call('ZSCORE', SLOTS, id) or nil)
if own then
  call('ZREM', SLOTS, id)
  call('ZREM', SLOTS .. ':until', id)
end
local come = own and own <= now
local last = call('ZSCORE', P .. 'rates', key)
local over = now
local wait = '0'
if earliest(not come, 0) <= now then
  over = now + longest
  call('ZADD', STARTS, digits(now), start)
  call('ZADD', STARTS .. ':until', digits(over), start)
else
  local slot = earliest(true, SLACK)
  if own and not come then slot = math.min(slot, own) end
  over = slot + longest
  call('ZADD', SLOTS, digits(slot), id)
  call('ZADD', SLOTS .. ':until', digits(over), id)
  wait = digits(slot - now)
end
if not last or tonumber(last) < over then call('ZADD', P .. 'rates', digits(over), key) end
return wait
