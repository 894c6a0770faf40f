-- with: prelude
local space, after, limit = take(), take(), take()
if limit < 1 then return {} end
local from = after == '' and '-' or '(' .. after
local docs = {}
for index, key in ipairs(call('ZRANGEBYLEX', P .. 'dockeys:' .. space, from, '+', 'LIMIT', 0, limit)) do
  docs[index] = { key, call('HGET', P .. 'docs:' .. space, key) }
end
return docs
