-- What a worker still holds of this queue under a ticket.
-- KEYS  the queue's 13
-- ARGV  1 shift  2 worker  3 ticket  4 the id behind which to go on ('' from the first)  5 limit  6 bytes of payloads
--       after which no further job is read
-- Returns 'cut' if there are more, else 'all'; then the rows of held.lua, by id.

local bytes = tonumber(ARGV[6])
local wrong = other_layout()
if wrong then
  return wrong
end
local held, ids = call('HGETALL', HELD .. ARGV[2]), {}
for i = 1, #held, 2 do
  local stamp = tonumber(held[i + 1])
  if stamp and math.floor(stamp / 1000) == tonumber(ARGV[3]) and held[i] > ARGV[4] then
    ids[#ids + 1] = held[i]
  end
end
table.sort(ids)
local rows = { 'all' }
for i = 1, #ids do
  if bytes < 0 or i > tonumber(ARGV[5]) then
    rows[1] = 'cut'
    break
  end
  local row, more = row_of(ids[i])
  if row then
    rows[#rows + 1] = row
    bytes = bytes - bytes_of(row, more)
  end
end
return rows
