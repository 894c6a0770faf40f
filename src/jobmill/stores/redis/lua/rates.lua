-- The starts and slots of a rate limit: by their instant, and by when they mean nothing more.

local function forget_old(set, now)
  while true do
    local old = call('ZRANGEBYSCORE', set .. ':until', '-inf', digits(now), 'LIMIT', 0, 500)
    if #old == 0 then return end
    call('ZREM', set, unpack(old))
    call('ZREM', set .. ':until', unpack(old))
  end
end
