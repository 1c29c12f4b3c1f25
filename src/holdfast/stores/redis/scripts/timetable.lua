-- Part: the schedules whose jobs go to this queue. `schedule:<name>` is a hash: token (which one of its name it is, see
-- `{P}:schedules` in timetable.py), revision, text, next, pause, made, skipped, missed; to: the queue to which it is on its
-- way, and then it is not to be changed here; gone: it was taken away.

local ENTRY, TICKED = BASE .. 'schedule:', BASE .. 'ticked:'
local TICKS = BASE .. 'ticks' -- names, by when they are next of interest to anybody
local OF_AN_ENTRY = { 'token', 'revision', 'next', 'pause', 'to', 'gone', 'made', 'skipped', 'missed' }

-- All of an entry but its text; nil where there is none. Raises where a key of it is of another type.
local function read_entry(name)
  local said = call('HMGET', ENTRY .. name, unpack(OF_AN_ENTRY))
  call('LLEN', TICKED .. name)
  call('ZCARD', TICKS)
  if not said[1] then
    return nil
  end
  local entry = {}
  for i = 1, #OF_AN_ENTRY do
    entry[OF_AN_ENTRY[i]] = said[i] ~= '' and said[i]
  end
  return entry
end

-- A write: when an entry is next of interest.
local function note_entry(name, entry)
  local till = entry.pause and string.match(entry.pause, '^%S+ (%S+) ')
  local at = tonumber(entry.next)
  if entry.to then
    at = 0 -- now: whoever looks carries it there
  elseif at and till then
    at = till ~= '-' and math.max(at, tonumber(till))
  end
  if at then
    call('ZADD', TICKS, at, name)
  else
    call('ZREM', TICKS, name)
  end
end
