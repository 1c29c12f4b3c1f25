-- One more word on a queue: what code declares, or what an operator says, which goes before.
-- KEYS  the queue's 13
-- ARGV  1 shift  2 by: producer, worker or operator  3 the terms as a JSON array of max_size, when_full, block_timeout
--       (and weight, which is only kept); "": none, an operator takes his word back
-- Returns 0.

local by, word = ARGV[2], ARGV[3]
local wrong = unsound()
if wrong then
  return wrong
end
if by ~= 'producer' and by ~= 'worker' and by ~= 'operator' then
  return redis.error_reply('HFARGS by ' .. by)
end
local said = call('HMGET', META, 'declared', 'edited', 'layout')
local declared, edited = said[1] or '', said[2] or ''
if by == 'operator' then
  edited = word
elseif word ~= '' and (by == 'worker' or declared == '') then
  declared = word
end
if declared == (said[1] or '') and edited == (said[2] or '') then
  return 0
end

local terms = edited ~= '' and edited or declared
local fields = { 'declared', declared, 'edited', edited }
local names = { 'max_size', 'when_full', 'block_timeout' }
local values = terms == '' and {} or cjson.decode(terms)
for i = 1, 3 do
  local value = values[i]
  fields[#fields + 1] = names[i]
  fields[#fields + 1] = type(value) == 'number' and string.format('%.0f', value) or type(value) == 'string' and value or ''
end
if terms ~= '' and fields[8] == '' then
  return redis.error_reply('HFARGS terms ' .. word)
end

-- What is absent means none; a hash is never left without its layout.
local kept, gone = { 'layout', LAYOUT }, {}
if not said[3] then
  kept = { 'layout', LAYOUT, 'running', held_by_all() }
end
for i = 1, #fields, 2 do
  if fields[i + 1] == '' then
    gone[#gone + 1] = fields[i]
  else
    kept[#kept + 1] = fields[i]
    kept[#kept + 1] = fields[i + 1]
  end
end
if terms == '' then
  gone[#gone + 1] = 'dropped'
end
if fields[8] ~= 'drop_oldest' then
  gone[#gone + 1] = 'oldest'
end
call('HSET', META, unpack(kept))
if #gone > 0 then
  call('HDEL', META, unpack(gone))
end
return 0
