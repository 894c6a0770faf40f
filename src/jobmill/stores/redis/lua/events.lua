-- with: prelude
local after, limit = take(), take()
if after then
  return call('ZRANGEBYSCORE', P .. 'events', '(' .. string.format('%.0f', after), '+inf', 'LIMIT', 0, limit)
end
return call('ZREVRANGE', P .. 'events', 0, math.min(limit, 1) - 1)
