-- Takes a schedule out of this queue, if it is just this one; or leaves but a mark, by which nobody takes it for one that
-- was not stored yet.
-- KEYS  the queue's 13
-- ARGV  1 shift  2 name  3 token  4 revision  5 '1': leave a mark; '': leave nothing, also of one that has left or is a
--       mark
-- Returns 1 if it went now; 0: it is another one, or there is none.

local wrong = unsound()
if wrong then
  return wrong
end
local name, marks = ARGV[2], ARGV[5] == '1'
local entry = read_entry(name)
if not entry or entry.token ~= ARGV[3] or entry.revision ~= ARGV[4] or (marks and (entry.to or entry.gone)) then
  return 0
end

begin_writes(META)
call('ZREM', TICKS, name)
call('DEL', TICKED .. name, ENTRY .. name)
if marks then
  call('HSET', ENTRY .. name, 'token', ARGV[3], 'revision', ARGV[4], 'gone', '1')
end
return 1
