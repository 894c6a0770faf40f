-- Events applied to jobs, by the table.

local function read_move()
  local at = taken
  local move = {
    event = arguments[at + 1],
    id = arguments[at + 2],
    token = arguments[at + 3],
    result = arguments[at + 4],
  }
  taken = at + 5
  if arguments[taken] then
    move.delay = take()
    move.error = take()
    move.fingerprint = take()
    move.lapsed = take()
    move.untried = take()
    move.memo = take()
    move.note = read_note()
  end
  return move
end

local rules = {}

-- What the table says of an event in a state; false where it has no row.
local function rule_of(event, state)
  local of = rules[event]
  if not of then
    of = {}
    rules[event] = of
  end
  local rule = of[state]
  if rule == nil then
    rule = new_rule(event .. ':' .. state) or false
    of[state] = rule
  end
  return rule
end

local OF_A_RUN = {
  'asked_error', 'asked_fingerprint', 'progress', 'progress_note', 'line', 'memo',
}

local function start_over(job)
  for _, field in ipairs(OF_A_RUN) do set(job, field, nil) end
  put(job, 'result', nil)
  job[SUSPECT], job[ASKED], job[TAKEN], job[WORKER] = 0, 0, 0, ''
  job[LEASE], job[STARTED], job[ENDED_AT], job[EXPIRES] = NEVER, NEVER, NEVER, NEVER
  job[ATTEMPTS], job[LAPSES] = 0, 0
  job[GENERATION] = job[GENERATION] + 1
  call('DEL', P .. 'logs:' .. job.id)
end

local function write_error(job, err, fingerprint, now)
  if not err then return end
  call('RPUSH', P .. 'errors:' .. job.id, err)
  call('LTRIM', P .. 'errors:' .. job.id, -KEPT_ERRORS, -1)
  set(job, 'fingerprint', fingerprint)
  if fingerprint then group(job, err, fingerprint, now) end
end

-- Append the move's error, and that of the cancel which the run ends by.
local function write_errors(job, rule, move, now)
  if job[ASKED] == 1 and rule.if_asked and job.asked_error then
    if rule.if_asked ~= rule.after then write_error(job, move.error, move.fingerprint, now) end
    write_error(job, job.asked_error, job.asked_fingerprint, now)
  else
    write_error(job, move.error, move.fingerprint, now)
  end
end

local function end_job(job, after, now)
  job[ASKED] = 0
  set(job, 'asked_error', nil)
  set(job, 'asked_fingerprint', nil)
  local kept = after == 'completed' and job[KEEP_RESULT] or job[KEEP_FAILED]
  job[ENDED_AT] = now
  job[EXPIRES] = now + kept
  ends_told[#ends_told + 1] = job.id
  tell_event(job.id, job[NAME], after, now)
end

local function change(job, rule, move, now)
  local diverted = job[ASKED] == 1 and rule.if_asked
  local after = diverted or rule.after
  if rule.token or ENDED[after] then
    tally(job[NAME], move.event, after, job[STARTED], job[DUE], move.lapsed, move.untried, now)
  end
  leave(job)
  if rule.fresh then start_over(job) end
  if rule.token then
    if move.note then take_note(job, move.note) end
    local suspect = rule.suspect or (job[SUSPECT] == 1 and move.untried)
    job[SUSPECT] = suspect and 1 or 0
    if move.result then put(job, 'result', move.result) end
    set(job, 'memo', move.memo)
    -- They are those of one run.
    job[TAKEN] = 0
    set(job, 'line', nil)
  end
  local lapses = math.max(rule.lapses, move.lapsed and 1 or 0)
  if rule.attempt ~= 0 then job[ATTEMPTS] = job[ATTEMPTS] + rule.attempt end
  if lapses ~= 0 then job[LAPSES] = job[LAPSES] + lapses end
  if rule.due == 'now' then
    job[DUE] = now
  elseif rule.due == 'after_delay' and not diverted then
    job[DUE] = now + (move.delay or 0)
  end
  write_errors(job, rule, move, now)
  if ENDED[after] then
    end_job(job, after, now)
  elseif move.event == 'retry' then
    tell_event(job.id, job[NAME], 'retried', now)
  end
  enter(job, after)
  save(job)
  if state_of(job, now) == 'pending' then tell_jobs() end
end

local function ask(job, move)
  if job[ASKED] == 0 then
    job[ASKED] = 1
    set(job, 'asked_error', move.error)
    set(job, 'asked_fingerprint', move.fingerprint)
    save(job)
    call('SADD', P .. 'asked:' .. job[WORKER], job.id)
  end
  tell_jobs()
end

-- What became of a move: one word, or how it ended and the state, or `held` and by whom.
local function apply(move, now)
  local job = load(move.id)
  if not job then return 'missing' end
  ripen(job, now)
  if NEEDS_TOKEN[move.event] then
    if not move.token or move.token ~= job[TOKEN] then return 'stale' end
    if job[STATE] ~= 'processing' then return 'already ' .. job[STATE] end
  end
  local rule = rule_of(move.event, job[STATE])
  if not rule or move.event == 'mature' then return 'refused ' .. job[STATE] end
  if ENDED[job[STATE]] and job.unique then
    local holder = call('HGET', P .. 'unique', key_of(job[NAME], job.unique))
    if holder then return { 'held', holder } end
  end
  if rule.asks then ask(job, move) else change(job, rule, move, now) end
  return 'applied ' .. state_of(job, now)
end

-- The same for what most moves are, without a table for each: the success of a run that nobody asked
-- to cancel, of a job with none of what few jobs have. nil where it is another.
local function succeed(id, token, result, now)
  local key = P .. 'job:' .. id
  local head = call('HGET', key, 'head')
  if not head then return nil end
  local suspect, asked, took_over, more, due, enqueued, seq, priority, started, lease, ended_at,
    expires, keep_result, keep_failed, attempts, lapses, generation, name, state, its_token,
    worker = struct.unpack(HEAD, head)
  if state ~= 'processing' or its_token ~= token or asked == 1 or more == 1 then return nil end
  local after = rule_of('succeed', state).after
  expires = now + keep_result
  head = struct.pack(HEAD, 0, 0, 0, 0, due, enqueued, seq, priority, started, lease, now, expires,
    keep_result, keep_failed, attempts, lapses, generation, name, after, token, worker)
  call('HSET', key, 'head', head, 'result', result)
  tally(name, 'succeed', after, started, due, false, false, now)
  count(name, state, -1)
  count(name, after, 1)
  drop_rank('leases', rank_of(due, seq, id))
  put_rank('ended', score_of(expires), place_of(seq, id))
  ends_told[#ends_told + 1] = id
  tell_event(id, name, after, now)
  return 'applied ' .. after
end

local function apply_all(now)
  local answers = {}
  for index = 1, take() do
    local at = taken
    local result = arguments[at + 4]
    if result and not arguments[at + 5] and arguments[at + 1] == 'succeed' then
      answers[index] = succeed(arguments[at + 2], arguments[at + 3], result, now)
      taken = at + 5
    end
    if not answers[index] then
      taken = at
      answers[index] = apply(read_move(), now)
    end
  end
  return answers
end
