-- with: prelude jobs adding
local now = new_instant()
local wake = take() == '1'
local answers, added = add_all(take() == '1', now)
flush_counts()
if wake and added then tell_jobs() end
publish()
return { call('HEXISTS', META, 'listed'), answers }
