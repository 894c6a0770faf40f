-- with: prelude
if call('EXISTS', P .. 'all') == 1 then return 1 end
return tonumber(call('HGET', META, 'docs') or 0) > 0 and 1 or 0
