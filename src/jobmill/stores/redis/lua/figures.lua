-- What a queue remembers of its outcomes: the event list, error groups, figures by minute.

local figures = {}

local function observe(name, sum, bars, seconds)
  seconds = math.max(0, seconds)
  local bar, bound = 0, BOUNDS_FROM
  while bar < BOUNDS and bound < seconds do
    bar, bound = bar + 1, bound * 2
  end
  local kept = figures[name]
  kept[sum] = (kept[sum] or 0) + seconds
  kept[bars .. bar] = (kept[bars .. bar] or 0) + 1
end

local function plus_one(name, figure)
  figures[name][figure] = (figures[name][figure] or 0) + 1
end

-- Count a move that is about to change the job.
local function tally(job, move, after, now)
  local name = job.name
  figures[name] = figures[name] or {}
  if ENDED[after] then
    plus_one(name, after)
  elseif move.event == 'retry' then
    plus_one(name, 'retried')
  end
  local lapsed = move.lapsed or move.event == 'lapse'
  if lapsed then plus_one(name, 'lapsed') end
  if not job.started or move.untried or not NEEDS_TOKEN[move.event] then return end
  plus_one(name, 'started')
  observe(name, 'wait_sum', 'w', job.started - job.due)
  if TIMED[move.event] and not lapsed then
    observe(name, 'run_sum', 'r', now - job.started)
  end
end

local function write_figures(now)
  local minute = math.floor(now / 60) * 60
  local key = P .. 'minute:' .. string.format('%.0f', minute)
  local wrote = false
  for name, kept in pairs(figures) do
    for figure, by in pairs(kept) do
      wrote = true
      if figure == 'wait_sum' or figure == 'run_sum' then
        call('HINCRBYFLOAT', key, figure .. ':' .. name, digits(by))
      else
        call('HINCRBY', key, figure .. ':' .. name, by)
      end
    end
  end
  if wrote then call('ZADD', P .. 'minutes', minute, string.format('%.0f', minute)) end
  figures = {}
end

local function tell_event(job, kind, now)
  local seq = next_number('event')
  local head = string.format('%.0f %.17g %s %d ', seq, now, kind, #job.name)
  local text = head .. job.name .. job.id
  put_rank(P .. 'events', string.format('%.0f', seq), text)
  events_told = true
end

local function group(job, err, fingerprint, now)
  local key = P .. 'group:' .. fingerprint
  call('HSETNX', key, 'first_seen', digits(now))
  call('HINCRBY', key, 'count', 1)
  call('HSET', key, 'last_seen', digits(now), 'job_name', job.name, 'last_job_id', job.id,
    'last_error', err)
  put_rank(P .. 'groups', digits(now), fingerprint)
end
