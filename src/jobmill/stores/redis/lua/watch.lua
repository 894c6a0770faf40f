-- with: prelude
-- Registers who waits for the end of jobs; whether one of them is over already.
local timeout = number()
local over = 0
local now = server_time()
for _ = 1, number() do
  local id = take()
  local state = call('HGET', P .. 'job:' .. id, 'state')
  if not state or ENDED[state] then
    over = 1
  else
    local before = tonumber(call('ZSCORE', P .. 'waiting', id) or 0)
    call('ZADD', P .. 'waiting', digits(math.max(before, now + timeout)), id)
  end
end
return over
