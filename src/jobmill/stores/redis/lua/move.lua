-- with: prelude jobs figures moving
local now = new_instant()
local answers = apply_all(now)
flush_counts()
flush_figures(now)
publish()
return answers
