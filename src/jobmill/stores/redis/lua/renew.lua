-- with: prelude jobs
write_when_full()
local now = new_instant()
local lease = take()
local beats = {}
for index = 1, take() do
  local id, token = take(), take()
  local note = read_note()
  local job = load(id)
  if not job or job.state ~= 'processing' or job.token ~= token then
    beats[index] = 'lost'
  else
    set(job, 'lease', now + lease)
    put_rank(P .. 'leases', digits(job.lease), place(job))
    if note then take_note(job, note) end
    save(job)
    beats[index] = job.asked and 'abort' or 'ok'
  end
end
finish()
return beats
