-- with: prelude heads adding
local now = new_instant()
local wake, whole = take(), take()
local answers, added = add_all(whole, now)
if wake and added then tell_jobs() end
finish()
return { call('HEXISTS', META, 'listed'), answers }
