-- with: prelude heads jobs
write_when_full()
local now = new_instant()
local lease = take()
local beats = {}
for index = 1, take() do
  local id, token = take(), take()
  local note = read_note()
  local job = load(id)
  if not job or job[STATE] ~= 'processing' or job[TOKEN] ~= token then
    beats[index] = 'lost'
  else
    job[LEASE] = now + lease
    put_rank('leases', score_of(job[LEASE]), rank(job))
    if note then take_note(job, note) end
    save(job)
    beats[index] = job[ASKED] == 1 and 'abort' or 'ok'
  end
end
finish()
return beats
