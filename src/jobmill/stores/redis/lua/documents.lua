-- The small documents of a queue: a hash by key for each space, and their keys in order.

local function version_of(space, key)
  local there = call('HGET', P .. 'docs:' .. space, key)
  if not there then return 0 end
  return tonumber(string.match(there, '^%d+'))
end

local function heed(space)
  if HEEDED[space] then
    next_number('heed')
    tell_jobs()
  end
end

local function put(space, key, value, now)
  local version = next_number('doc')
  local head = string.format('%.0f %.17g ', version, now)
  if call('HSET', P .. 'docs:' .. space, key, head .. value) == 1 then
    call('HINCRBY', META, 'docs', 1)
  end
  call('ZADD', P .. 'dockeys:' .. space, 0, key)
  heed(space)
  return version
end

local function discard(space, key)
  if call('HDEL', P .. 'docs:' .. space, key) == 1 then
    call('ZREM', P .. 'dockeys:' .. space, key)
    call('HINCRBY', META, 'docs', -1)
    heed(space)
  end
end
