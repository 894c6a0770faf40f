-- Events applied to jobs, by the table.

local function read_move()
  local move = {
    event = take(),
    id = take(),
    token = take(),
    delay = take(),
    result = take(),
    error = take(),
    fingerprint = take(),
    lapsed = take(),
    untried = take(),
    memo = take(),
  }
  move.note = read_note()
  return move
end

local OF_A_RUN = {
  'suspect', 'asked', 'asked_error', 'asked_fingerprint', 'taken', 'worker', 'lease', 'started',
  'ended', 'expires', 'result', 'progress', 'progress_note', 'line', 'memo',
}

local function start_over(job)
  for _, field in ipairs(OF_A_RUN) do forget(job, field) end
  set(job, 'attempts', 0)
  set(job, 'lapses', 0)
  set(job, 'generation', job.generation + 1)
  call('DEL', P .. 'logs:' .. job.id)
end

local function write_error(job, err, fingerprint, now)
  if not err then return end
  call('RPUSH', P .. 'errors:' .. job.id, err)
  call('LTRIM', P .. 'errors:' .. job.id, -KEPT_ERRORS, -1)
  set_or_clear(job, 'fingerprint', fingerprint)
  if fingerprint then group(job, err, fingerprint, now) end
end

-- Append the move's error, and that of the cancel which the run ends by.
local function write_errors(job, rule, move, now)
  if job.asked and rule.if_asked and job.asked_error then
    if rule.if_asked ~= rule.after then write_error(job, move.error, move.fingerprint, now) end
    write_error(job, job.asked_error, job.asked_fingerprint, now)
  else
    write_error(job, move.error, move.fingerprint, now)
  end
end

local function end_job(job, after, now)
  clear(job, 'asked')
  clear(job, 'asked_error')
  clear(job, 'asked_fingerprint')
  local kept = after == 'completed' and job.keep_result or job.keep_failed
  set(job, 'ended', now)
  set(job, 'expires', now + tonumber(kept))
  ends_told[#ends_told + 1] = job.id
  tell_event(job, after, now)
end

local function change(job, rule, move, now)
  local diverted = job.asked and rule.if_asked
  local after = diverted or rule.after
  if rule.token or ENDED[after] then tally(job, move, after, now) end
  leave(job)
  if rule.fresh then start_over(job) end
  if rule.token then
    if move.note then take_note(job, move.note) end
    local suspect = rule.suspect or (job.suspect and move.untried)
    set_or_clear(job, 'suspect', suspect and '1' or nil)
    if move.result then set(job, 'result', move.result) end
    set_or_clear(job, 'memo', move.memo)
    -- They are those of one run.
    clear(job, 'taken')
    clear(job, 'line')
  end
  local lapses = math.max(rule.lapses, move.lapsed and 1 or 0)
  if rule.attempt ~= 0 then set(job, 'attempts', job.attempts + rule.attempt) end
  if lapses ~= 0 then set(job, 'lapses', job.lapses + lapses) end
  if rule.due == 'now' then
    set(job, 'due', now)
  elseif rule.due == 'after_delay' and not diverted then
    set(job, 'due', now + move.delay)
  end
  write_errors(job, rule, move, now)
  if ENDED[after] then
    end_job(job, after, now)
  elseif move.event == 'retry' then
    tell_event(job, 'retried', now)
  end
  enter(job, after)
  save(job)
  if state_of(job.state, job.due, now) == 'pending' then tell_jobs() end
end

local function ask(job, move)
  if not job.asked then
    set(job, 'asked', '1')
    set_or_clear(job, 'asked_error', move.error)
    set_or_clear(job, 'asked_fingerprint', move.fingerprint)
    save(job)
    call('SADD', P .. 'asked:' .. job.worker, job.id)
  end
  tell_jobs()
end

local function apply(move, now)
  local job = load(move.id)
  if not job then return { 'missing', move.id } end
  ripen(job, now)
  if NEEDS_TOKEN[move.event] then
    if not move.token or move.token ~= job.token then return { 'stale', job.id } end
    if job.state ~= 'processing' then return { 'already', job.id, job.state } end
  end
  local rule = RULES[move.event .. ':' .. job.state]
  if not rule or move.event == 'mature' then return { 'refused', job.id, job.state } end
  if ENDED[job.state] and job.unique then
    local holder = call('HGET', P .. 'unique', key_of(job))
    if holder then return { 'held', holder } end
  end
  if rule.asks then ask(job, move) else change(job, rule, move, now) end
  return { 'applied', job.id, state_of(job.state, job.due, now) }
end

local function apply_all(now)
  local answers = {}
  for index = 1, take() do answers[index] = apply(read_move(), now) end
  return answers
end
