-- with: prelude heads jobs asking
-- Looks at SCAN_LIMIT jobs at most; says where it stopped, and whether another one is there.
local now = instant()
local query = read_query()
local cursor, limit = take(), take()
local records = {}
local some = few(query)
if some then
  local before = tonumber((string.gsub(cursor, '^%(', '')))
  for _, job in ipairs(some) do
    if (not before or job[1] < before) and matches(job[2], query, now) then
      if #records == limit then return { records, cursor, 1 } end
      records[#records + 1] = record(job[2], now)
      cursor = '(' .. string.format('%.0f', job[1])
    end
  end
  return { records, false, 0 }
end
local looked, list = 0, list_of(query)
while looked < SCAN_LIMIT do
  some = call('ZREVRANGEBYSCORE', list, cursor, '-inf', 'WITHSCORES', 'LIMIT', 0, 100)
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
