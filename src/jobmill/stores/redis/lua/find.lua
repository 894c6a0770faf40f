-- with: prelude jobs asking
-- Looks at SCAN_LIMIT jobs at most; says where it stopped, and whether another one is there.
local now = instant()
local query = read_query()
local cursor, limit = take(), number()
local records = {}
local looked = 0
while looked < SCAN_LIMIT do
  local some = call('ZREVRANGEBYSCORE', P .. 'all', cursor, '-inf', 'WITHSCORES', 'LIMIT', 0, 100)
  if #some == 0 then return { records, false, 0 } end
  for index = 1, #some, 2 do
    if matches(some[index], query, now) then
      if #records == limit then return { records, cursor, 1 } end
      records[#records + 1] = record(some[index], now)
    end
    cursor = '(' .. string.format('%.0f', tonumber(some[index + 1]))
    looked = looked + 1
  end
end
return { records, cursor, 0 }
