-- Part: the time, in milliseconds, moved by `shift` (tests). A script asks once; no other text looks at a clock.

local function now(shift)
  local time = redis.call('TIME')
  return time[1] * 1000 + math.floor(time[2] / 1000) + shift
end
