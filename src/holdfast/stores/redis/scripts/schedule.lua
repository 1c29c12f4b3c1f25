-- Stores a schedule, if the one that is stored has just the revision that its writer has read.
-- KEYS  the queue's 13
-- ARGV  1 shift  2 name  3 token  4 revision  5 the queue to which it moves with this, ''  6 text  7 next, ''
--       8 pause, as pause.lua writes one, ''
-- Returns stored; other: it has another revision; moving: it is on its way to another queue; gone: it was taken away.

local wrong = unsound()
if wrong then
  return wrong
end
local name, token, revision, to = ARGV[2], ARGV[3], tonumber(ARGV[4]), ARGV[5]
local entry = read_entry(name)
local is_same = entry and entry.token == token
if is_same and entry.gone then
  return 'gone'
elseif is_same and entry.to then
  return 'moving'
elseif not revision or not ARGV[8] or (is_same and tonumber(entry.revision) or 0) ~= revision then
  return 'other'
end
local now_is = {
  next = ARGV[7] ~= '' and string.format('%.0f', ARGV[7]), pause = ARGV[8] ~= '' and ARGV[8], to = to ~= '' and to,
}

call('HSET', ENTRY .. name, 'token', token, 'revision', string.format('%.0f', revision + 1), 'text', ARGV[6],
  'next', now_is.next or '', 'pause', now_is.pause or '', 'to', to)
if not is_same then -- what was of another one of this name
  call('HDEL', ENTRY .. name, 'gone', 'made', 'skipped', 'missed')
  call('DEL', TICKED .. name)
end
note_entry(name, now_is)
return 'stored'
