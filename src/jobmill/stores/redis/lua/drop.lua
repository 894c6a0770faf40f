-- with: prelude heads jobs asking
-- Without ids it looks at SCAN_LIMIT jobs at most; says where it stopped.
write_when_full()
local now = new_instant()
local query = read_query()
local cursor, limit, given = take(), take(), take()
local removed = 0

local function try(id)
  local found, state, job = matches(id, query, now)
  if found and state ~= 'processing' then
    remove(job)
    removed = removed + 1
  end
end

if given then
  local seen, there = {}, {}
  for _ = 1, given do
    local id = take()
    local job = not seen[id] and load(id)
    if job then there[#there + 1] = job end
    seen[id] = true
  end
  table.sort(there, function(one, other) return one[SEQ] < other[SEQ] end)
  for _, job in ipairs(there) do
    if removed >= limit then break end
    try(job.id)
  end
  write_counts()
  finish()
  return { removed, false }
end
local looked, list = 0, list_of(query)
while looked < SCAN_LIMIT do
  local some = call('ZRANGEBYSCORE', list, cursor, '+inf', 'WITHSCORES', 'LIMIT', 0, 100)
  if #some == 0 then break end
  for index = 1, #some, 2 do
    if removed >= limit then break end
    try(some[index])
    cursor = '(' .. string.format('%.0f', tonumber(some[index + 1]))
    looked = looked + 1
  end
  if removed >= limit then break end
end
write_counts()
finish()
return { removed, looked >= SCAN_LIMIT and removed < limit and cursor or false }
