-- with: prelude documents
local now = new_instant()
local space, key, value, version = take(), take(), take(), take()
if version and version ~= version_of(space, key) then
  return { 1, false }
end
local written = '0'
if value then
  written = string.format('%.0f', put(space, key, value, now))
else
  discard(space, key)
end
finish()
return { call('HEXISTS', META, 'listed'), written }
