-- Puts a schedule here that comes from another queue, as it was there; unless it is here already, or was since.
-- KEYS  the queue's 13
-- ARGV  1 shift  2 name  3 token  4 revision  5 text  6 next, ''  7 pause, ''  8 made  9 skipped  10 missed  11… ticks
-- Returns whether it was put here now (1 or 0).

local wrong = unsound()
if wrong then
  return wrong
end
local name, token, revision = ARGV[2], ARGV[3], tonumber(ARGV[4])
local entry = read_entry(name)
if entry and entry.token == token and (entry.gone or tonumber(entry.revision) >= revision) then
  return 0
end
local made, skipped, missed = tonumber(ARGV[8]), tonumber(ARGV[9]), tonumber(ARGV[10])
if not (made and skipped and missed) then
  return redis.error_reply('HFARGS counts')
end
local now_is = { next = ARGV[6] ~= '' and string.format('%.0f', ARGV[6]), pause = ARGV[7] ~= '' and ARGV[7] }

call('HSET', ENTRY .. name, 'token', token, 'revision', ARGV[4], 'text', ARGV[5], 'next', now_is.next or '',
  'pause', ARGV[7], 'to', '', 'made', ARGV[8], 'skipped', ARGV[9], 'missed', ARGV[10])
call('HDEL', ENTRY .. name, 'gone')
call('DEL', TICKED .. name)
if #ARGV > 10 then
  call('RPUSH', TICKED .. name, unpack(ARGV, 11))
end
note_entry(name, now_is)
return 1
