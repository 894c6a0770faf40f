-- with: prelude heads
-- Registers who waits for the end of jobs, or of any; whether one of them is over already, or may
-- be: of any job, where nobody was registered who would have been told.
local now = instant()
local timeout = take()
local over = 0
for _ = 1, take() do
  local id = take()
  local job = id ~= ANY_END and load(id)
  if id ~= ANY_END and (not job or ENDED[job[STATE]]) then
    over = 1
  else
    local before = tonumber(call('ZSCORE', P .. 'waiting', id) or 0)
    if id == ANY_END and before < now then
      over = 1
    end
    call('ZADD', P .. 'waiting', digits(math.max(before, now + timeout)), id)
  end
end
return over
