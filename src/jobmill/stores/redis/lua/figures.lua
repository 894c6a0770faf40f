-- What a queue remembers of its outcomes: the event list, error groups, figures by minute.

local figures = {}

local function observe(kept, sum, bars, seconds)
  local bar = 0
  if seconds > BOUNDS_FROM then
    -- Each bound is twice the one before.
    local part, power = math.frexp(seconds / BOUNDS_FROM)
    bar = math.min(part > 0.5 and power or power - 1, BOUNDS)
  elseif seconds < 0 then
    seconds = 0
  end
  kept[sum] = (kept[sum] or 0) + seconds
  bars[bar] = (bars[bar] or 0) + 1
end

local function plus_one(kept, figure)
  kept[figure] = (kept[figure] or 0) + 1
end

-- Count a move that leads to the state `after`; the job is as it was before.
local function tally(name, event, after, started, due, lapsed, untried, now)
  local figure = figures[name]
  if not figure then
    figure = { kept = {}, waits = {}, runs = {} }
    figures[name] = figure
  end
  local kept = figure.kept
  if ENDED[after] then
    plus_one(kept, after)
  elseif event == 'retry' then
    plus_one(kept, 'retried')
  end
  lapsed = lapsed or event == 'lapse'
  if lapsed then plus_one(kept, 'lapsed') end
  if started == NEVER or untried or not NEEDS_TOKEN[event] then return end
  plus_one(kept, 'started')
  observe(kept, 'wait_sum', figure.waits, started - due)
  if TIMED[event] and not lapsed then
    observe(kept, 'run_sum', figure.runs, now - started)
  end
end

local function write_figures(now)
  local minute = math.floor(now / 60) * 60
  local key = P .. 'minute:' .. string.format('%.0f', minute)
  local wrote = false
  for name, figure in pairs(figures) do
    for bar, by in pairs(figure.waits) do call('HINCRBY', key, 'w' .. bar .. ':' .. name, by) end
    for bar, by in pairs(figure.runs) do call('HINCRBY', key, 'r' .. bar .. ':' .. name, by) end
    for what, by in pairs(figure.kept) do
      wrote = true
      if what == 'wait_sum' or what == 'run_sum' then
        call('HINCRBYFLOAT', key, what .. ':' .. name, digits(by))
      else
        call('HINCRBY', key, what .. ':' .. name, by)
      end
    end
  end
  if wrote then call('ZADD', P .. 'minutes', minute, string.format('%.0f', minute)) end
  figures = {}
end

local measured = {}

local function tell_event(id, name, kind, now)
  local seq = sixteen(next_number('event'))
  local named = measured[name]
  if not named then
    named = ' ' .. #name .. ' ' .. name
    measured[name] = named
  end
  put_rank('events', seq, seq .. ' ' .. digits(now) .. ' ' .. kind .. named .. id)
  events_told = true
end

local function group(job, err, fingerprint, now)
  local key = P .. 'group:' .. fingerprint
  call('HSETNX', key, 'first_seen', digits(now))
  call('HINCRBY', key, 'count', 1)
  call('HSET', key, 'last_seen', digits(now), 'job_name', job[NAME], 'last_job_id', job.id,
    'last_error', err)
  put_rank('groups', digits(now), fingerprint)
end
