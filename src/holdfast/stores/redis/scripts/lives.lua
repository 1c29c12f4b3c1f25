-- Part: a worker's row as its lease and its beats make it: "<lease_until> <beat_at> <steady_since> <retired_at, or ->".

local HOUR, DAY = 3600000, 86400000

-- nil for what is no row.
local function life_of(row)
  local till, beat, steady, retired = string.match(row or '', '^(%d+) (%d+) (%d+) (%S+)$')
  return till and { till = tonumber(till), beat = tonumber(beat), steady = tonumber(steady), retired = tonumber(retired) }
end

local function as_row(life)
  local retired = life.retired and string.format('%.0f', life.retired) or '-'
  return string.format('%.0f %.0f %.0f %s', life.till, life.beat, life.steady, retired)
end

-- Whether there was no beat for so long that others may not have been able to beat either.
local function is_pause(beat, moment, lease)
  return 2 * (moment - beat) > lease or beat > moment
end

local function renew(life, moment, lease)
  if is_pause(life.beat, moment, lease) then
    life.steady = moment
  end
  life.beat, life.till = moment, moment + lease
end

local function is_live(life, moment)
  return not life.retired and moment < life.till
end

local function is_steady(life, moment, lease)
  return life.beat <= moment and 2 * (moment - life.beat) < lease and moment - life.steady > lease
end

-- Cuts a lease that lies further ahead than its own length: the clock was stepped back. Whether it did.
local function cut(life, moment, lease)
  local is_far = not life.retired and life.till > moment + lease
  if is_far then
    life.till = moment + lease
  end
  return is_far
end

local function is_over(life, moment)
  return moment >= (life.retired and life.retired + HOUR or life.beat + DAY)
end

-- The length of a lease, by the registry; raises where one of its keys is of another type, before the first write.
local function lease_of_registry()
  redis.call('EXISTS', string.sub(KEYS[1], 1, -5) .. 'never') -- raises while the slot is on its way to another server, see jobs.lua
  local said = redis.call('HMGET', KEYS[1], 'layout', 'oldest_code', 'lease')
  redis.call('SCARD', KEYS[2])
  redis.call('HLEN', KEYS[3])
  redis.call('HLEN', KEYS[4])
  if not said[1] then
    return nil, redis.error_reply('HFGONE ' .. KEYS[1])
  end
  local layout, oldest_code = tonumber(said[1]), tonumber(said[2])
  if not layout or layout < tonumber(LAYOUT) or not oldest_code or oldest_code > tonumber(LAYOUT) then
    return nil, redis.error_reply('HFLAYOUT ' .. said[1])
  end
  return tonumber(said[3])
end
