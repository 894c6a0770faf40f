-- with: prelude
local minutes = {}
for index, minute in ipairs(call('ZRANGEBYSCORE', P .. 'minutes', take(), '+inf')) do
  minutes[index] = { minute, call('HGETALL', P .. 'minute:' .. minute) }
end
return minutes
