-- with: prelude heads jobs figures moving
write_when_full()
local now = new_instant()
local answers = apply_all(now)
write_counts()
write_figures(now)
finish()
return answers
