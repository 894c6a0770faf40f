-- with: prelude
local after, limit = maybe(), number()
if after then
  return call('ZRANGEBYSCORE', P .. 'events', '(' .. after, '+inf', 'LIMIT', 0, limit)
end
return call('ZREVRANGE', P .. 'events', 0, math.min(limit, 1) - 1)
