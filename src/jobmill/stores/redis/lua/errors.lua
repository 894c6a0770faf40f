-- with: prelude
local groups = {}
local limit = take()
if limit < 1 then return groups end
for index, fingerprint in ipairs(call('ZREVRANGE', P .. 'groups', 0, limit - 1)) do
  groups[index] = { fingerprint, unpack(call('HMGET', P .. 'group:' .. fingerprint, 'job_name',
    'count', 'first_seen', 'last_seen', 'last_job_id', 'last_error')) }
end
return groups
