-- Part: what stands before every script, behind clock.lua. ARGV[1] is always the shift: `now(tonumber(ARGV[1]))`.

-- Of the keys, as these scripts write them. A queue's `layout` is the oldest whose code can serve it: a later code that
-- writes more, which this one need not know, leaves it.
local LAYOUT = '1'

-- The keys of a queue. Scripts of the registry name theirs themselves.
local META, JOBS, READY, DUE, DEAD, CANCELLED, FINAL, WORKERS, LOSSES, TICKETS, HOLDERS, UNIQUE, IDLE = unpack(KEYS)
local BASE = string.sub(KEYS[1], 1, -5) -- without `meta`: '{prefix:queue}:'

-- The first write of what must go on where a server has no memory left: it refuses a script's first write if that may
-- take memory, and none after one that cannot. `key` is a hash; nothing of it goes.
local function begin_writes(key)
  redis.call('HDEL', key, '')
end

-- Whether the queue's `paused` says that it is: "<since> <until, or -> <reason>".
local function is_paused(said, moment)
  local till = said and string.match(said, '^%S+ (%S+) ')
  return till and (till == '-' or moment < tonumber(till))
end

-- Wakes whoever waits for jobs of this queue, unless it is paused, once for all that a script makes ready. A hint: it
-- comes in the middle of writes, so whatever the server says to it (the user may not publish, say) must not end the
-- script. It calls no other function of a part: the server would make that one anew at each call of a script, too.
local rung = false
local function ring(is_resumed)
  if not rung and (redis.pcall('DEL', IDLE) == 1 or is_resumed) then
    local paused = { redis.pcall('HGET', META, 'paused') }
    local till = type(paused[1]) == 'string' and string.match(paused[1], '^%S+ (%S+) ')
    if not till or (till ~= '-' and now(tonumber(ARGV[1])) >= tonumber(till)) then
      local prefix, queue = string.match(BASE, '^{([^:]*):(.*)}:$')
      redis.pcall('PUBLISH', '{' .. prefix .. '}:wake', queue)
    end
  end
  rung = true
end
