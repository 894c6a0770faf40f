-- New jobs.

local function read_job()
  return {
    id = take(),
    name = take(),
    payload = take(),
    policy = take(),
    priority = take(),
    delay = take(),
    run_at = take(),
    unique = take(),
    metadata = take(),
    keep_result = take(),
    keep_failed = take(),
    changed = {},
  }
end

local function look(job, fresh, holders)
  local there = fresh[job.id]
  if not there then
    local got = call('HMGET', P .. 'job:' .. job.id, 'name', 'payload')
    if got[1] then there = { name = got[1], payload = got[2] } end
  end
  if there then
    local same = there.name == job.name and there.payload == job.payload
    return { same and 'same' or 'conflict', job.id }
  end
  if job.unique then
    local holder = holders[key_of(job)] or call('HGET', P .. 'unique', key_of(job))
    if holder then return { 'held', holder } end
    holders[key_of(job)] = job.id
  end
  fresh[job.id] = job
  return { 'added', job.id }
end

local function store(job, now)
  local due = job.run_at
  if job.delay then due = now + job.delay end
  set(job, 'due', due and due > now and due or now)
  set(job, 'seq', next_number('seq'))
  for _, field in ipairs({ 'name', 'payload', 'policy', 'priority', 'keep_result',
    'keep_failed' }) do
    set(job, field, job[field])
  end
  if job.unique then set(job, 'unique', job.unique) end
  if job.metadata then set(job, 'metadata', job.metadata) end
  set(job, 'enqueued', now)
  enter(job, job.due > now and 'delayed' or 'pending')
  save(job)
  put_rank(P .. 'all', string.format('%.0f', job.seq), job.id)
end

-- Store jobs; an answer for each. With `whole`, nothing where one is a conflict.
local function add_all(whole, now)
  local fresh, holders, jobs, answers = {}, {}, {}, {}
  local conflict, added = false, false
  for index = 1, take() do
    jobs[index] = read_job()
    answers[index] = look(jobs[index], fresh, holders)
    conflict = conflict or answers[index][1] == 'conflict'
  end
  local keep = not (whole and conflict)
  for index, job in ipairs(jobs) do
    local answer = answers[index]
    if not keep then
      if answer[1] ~= 'conflict' and fresh[answer[2]] then
        answers[index] = { 'dropped', job.id }
      end
    elseif answer[1] == 'added' then
      store(job, now)
      added = true
    end
  end
  write_counts()
  return answers, added
end
