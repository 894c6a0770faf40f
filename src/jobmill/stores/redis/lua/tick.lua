-- with: prelude heads adding documents
local now = new_instant()
local schedule, version, value, keep = take(), take(), take(), take()
if version == 0 or version ~= version_of('schedules', schedule) then return { 1, false, {} } end
local history = 'history:' .. schedule
for _ = 1, take() do
  local key = take()
  put(history, key, take(), now)
end
for _, key in ipairs(call('ZREVRANGE', P .. 'dockeys:' .. history, keep, -1)) do
  discard(history, key)
end
local answers = add_all(false, now)
local written = put('schedules', schedule, value, now)
finish()
return { call('HEXISTS', META, 'listed'), string.format('%.0f', written), answers }
