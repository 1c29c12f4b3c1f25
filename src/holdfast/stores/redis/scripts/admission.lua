-- Part: how drafts are stored some of which have unique keys, or for which there may be no place. All is read and decided
-- first, draft by draft as if each had been written at once; then all is written, new jobs before the rest: a server
-- without memory refuses the first write, and none after it.

-- What drafts have in common, by number: of ARGV from `first` on, twelve for each of `count`: task, kind, priority, delay,
-- at ("": the delay counts), keep, born ("1" or ""), until ("": no unique key), hold, clash, and expires and deadline
-- ("": none; a and an instant; d and a delay).
local function kinds_of(first, count, moment)
  local kinds = {}
  local function limit(text)
    if text == '' then
      return nil
    end
    return 0 + string.sub(text, 2) + (string.sub(text, 1, 1) == 'd' and moment or 0)
  end
  for n = 1, count do
    local i = first + 12 * (n - 1)
    local due = ARGV[i + 4] ~= '' and 0 + ARGV[i + 4] or moment + ARGV[i + 3]
    kinds[n] = {
      task = ARGV[i], text = ARGV[i + 1], priority = 0 + ARGV[i + 2], due = due, keep = 0 + ARGV[i + 5],
      born = ARGV[i + 6], till = ARGV[i + 7], hold = ARGV[i + 8], clash = ARGV[i + 9],
      expires = limit(ARGV[i + 10]), deadline = limit(ARGV[i + 11]),
      state = due <= moment and 'queued' or 'scheduled',
    }
  end
  return kinds
end

-- Returns what decides about a draft (its answer; nothing if it is simply stored, false if the search for a place stops
-- for now), what writes all then (`stopped`: not all were decided), and the room that is left, if the queue has a bound.
local function admission(moment)
  local LOOKS = 500 -- at jobs, in search of those that are dropped; read PAGE by PAGE
  local PAGE = 50
  local FEW = 100 -- jobs that are rather looked at themselves

  local running = call('HEXISTS', META, 'layout') == 0 and held_by_all()
  local room = bound()
  local jobs = {} -- by id: those that were looked at, and those stored here (with their `kind`)
  local made = {} -- those stored here
  local steps = {} -- what is to be written then, in order: pairs of a function and its job
  local drops = 0 -- how many more the queue has dropped

  local function step(write, job)
    steps[#steps + 1] = write
    steps[#steps + 1] = job
  end

  local function is_unstarted(job)
    return (job.state == 'queued' or job.state == 'scheduled') and not job.started and not job.dropped
  end

  -- Whether the job of this id is the same: nil where there is none.
  local function is_same(id, kind, payload)
    local job = jobs[id]
    if job and job.kind then
      return job.task == kind.task and job.payload == payload
    end
    local task = call('HGET', JOB .. id, 'task')
    if not task then
      return nil
    end
    local first = call('HGET', JOB .. id, 'first')
    local alike = first and first == redis.sha1hex(payload) or not first and call('HGET', JOB .. id, 'payload') == payload
    return task == kind.task and alike
  end

  -- --- unique keys

  local takers = {} -- by key: the job that has it, or false
  local losers = {} -- by key: the job that had it, whose time is over

  local function taker_of(key)
    if takers[key] == nil then
      local job, over = holder_of(key, moment)
      job = job and (jobs[job.id] or job)
      takers[key] = job and not over and job or false
      losers[key] = over and job or nil
      if job then
        jobs[job.id] = job
      end
    end
    return takers[key]
  end

  local function write_key(job)
    take_key(job, job.loser)
  end

  local function write_replaced(job)
    local later = job.later
    call('HSET', JOB .. job.id, 'payload', later.payload, 'first', job.first, 'due', later.due, 'state', later.state)
    take_out(job)
    write_job(job, 'expires', later.expires or false, 'deadline', later.deadline or false)
    job.due, job.state = later.due, later.state
    put_in(job)
  end

  -- The payload and the times of a job are those of a draft from now on.
  local function replace(job, kind, payload)
    if job.kind then
      job.due, job.state, job.later = kind.due, kind.state, { payload = payload }
      job.expires, job.deadline = kind.expires, kind.deadline
      return
    end
    if not job.later then
      job.first = job.first or redis.sha1hex(call('HGET', JOB .. job.id, 'payload') or '')
      step(write_replaced, job)
    end
    job.later = {
      payload = payload, due = kind.due, state = kind.state, expires = kind.expires, deadline = kind.deadline,
    }
  end

  -- What becomes of a draft whose key is held.
  local function clash(holder, kind, payload)
    local alike = holder.task == kind.task
    if kind.clash == 'return' and alike then
      return 'duplicate'
    elseif kind.clash == 'replace' and alike and is_unstarted(holder) then
      replace(holder, kind, payload)
      return 'replaced'
    end
    return 'taken'
  end

  -- --- places: whose is given up

  local all -- where they are few: {id, at} of all that may be dropped, in order
  local at_rank, page, nth_of_page -- else: of the search along `jobs`
  local looks = 0
  local reached -- {id, at}: before it in `jobs` all are started or final
  local head -- {id, at} of the one found last
  local own = {} -- of those stored here, in order

  local function is_before(a, b)
    local x, y = tonumber(a.at), tonumber(b.at)
    return x < y or (x == y and a.id < b.id)
  end

  local function is_droppable(id)
    if jobs[id] then
      return is_unstarted(jobs[id])
    end
    local said = call('HMGET', JOB .. id, 'state', 'started')
    return (said[1] == 'queued' or said[1] == 'scheduled') and (not said[2] or said[2] == '')
  end

  local function all_droppable()
    local found = {}
    for _, key in ipairs({ READY, DUE }) do
      for _, id in ipairs(call('ZRANGE', key, 0, -1)) do
        if is_droppable(id) then
          found[#found + 1] = { id = id, at = tonumber(call('HGET', JOB .. id, 'at')) }
        end
      end
    end
    table.sort(found, is_before)
    return found
  end

  local function begin_search()
    if call('ZCARD', READY) + call('ZCARD', DUE) <= FEW then
      all = all_droppable()
      return
    end
    local at, id = oldest()
    page, nth_of_page, at_rank = {}, 0, 0
    if at then
      reached = { id = id, at = at }
      at_rank = call('ZRANK', JOBS, id) or call('ZCOUNT', JOBS, '-inf', '(' .. string.format('%.0f', at))
    end
  end

  local function next_in_jobs()
    if nth_of_page >= #page then
      page, nth_of_page = call('ZRANGE', JOBS, at_rank, at_rank + PAGE - 1, 'WITHSCORES'), 0
      at_rank = at_rank + PAGE
    end
    local id, at = page[nth_of_page + 1], page[nth_of_page + 2]
    nth_of_page = nth_of_page + 2
    reached = id and { id = id, at = tonumber(at) } or reached
    return id and reached
  end

  -- The oldest that may be dropped, of those that were stored before; nil: none; false: the search stops for now.
  local function oldest_stored()
    if not (all or page) then
      begin_search()
    end
    while not (head and is_droppable(head.id)) do
      if looks >= LOOKS then
        return false
      end
      if all then
        head = table.remove(all, 1)
      else
        head, looks = next_in_jobs(), looks + 1
      end
      if not head then
        return nil
      end
    end
    return head
  end

  local function oldest_unstarted()
    while own[1] and not is_unstarted(own[1]) do
      table.remove(own, 1)
    end
    local stored = oldest_stored()
    if stored == false or not stored or (own[1] and is_before(own[1], stored)) then
      return stored ~= false and own[1] or stored
    end
    jobs[stored.id] = jobs[stored.id] or read_job(stored.id)
    return jobs[stored.id]
  end

  local function write_dropped(job)
    take_out(job)
    end_job(job, 'cancelled', 'dropped', kept_for(job.keep), moment)
  end

  local function drop(job)
    job.dropped = true
    drops = drops + 1
    room[1] = room[1] - 1
    if job.key and taker_of(job.key) == job and (tonumber(job.hold) or 0) == 0 then
      takers[job.key] = false
    end
    step(write_dropped, job)
  end

  -- --- draft by draft

  local function store(id, payload, kind, key)
    local job = {
      id = id, kind = kind, payload = payload, task = kind.task, state = kind.state, priority = kind.priority, at = moment,
      due = kind.due, keep = kind.keep, hold = kind.hold,
      expires = kind.expires, deadline = kind.deadline,
    }
    jobs[id] = job
    made[#made + 1] = job
    if kind.till ~= '' then
      job.key, job.loser = key, losers[key]
      takers[key], losers[key] = job, nil
      step(write_key, job)
    end
    if room then
      room[1] = room[1] + 1
      local n = #own
      while n > 0 and id < own[n].id do
        n = n - 1
      end
      table.insert(own, n + 1, job)
    end
  end

  -- The answer to a draft; nothing if it is simply stored, false if the search for a place stops for now.
  local function receive(id, payload, kind, key)
    local same = is_same(id, kind, payload)
    if same ~= nil then
      return { same and 'accepted' or 'conflict', 0 }
    end
    local holder = kind.till ~= '' and taker_of(key)
    if holder then
      return { clash(holder, kind, payload), 0, holder.id }
    end
    local victim
    if room and room[1] >= room[2] then
      if room[3] == 'drop_newest' then
        drops = drops + 1
        return { 'dropped', 0, '', '', unpack(room) }
      end
      if room[3] == 'drop_oldest' then
        victim = oldest_unstarted()
      end
      if not victim then
        return victim ~= false and { 'full', 0, '', '', unpack(room) }
      end
      drop(victim)
    end
    store(id, payload, kind, key)
    return victim and { 'accepted', 1, '', victim.id }
  end

  -- --- all is written

  local function write(job)
    local kind, key = job.kind, JOB .. job.id
    call('HSET', key, 'state', job.state, 'task', job.task, 'kind', kind.text, 'payload',
      job.later and job.later.payload or job.payload, 'at', moment, 'due', job.due, 'keep', job.keep)
    if kind.born ~= '' then
      call('HSET', key, 'born', '1', 'alone', '1', 'odd', '1')
    end
    if job.priority ~= 0 then
      call('HSET', key, 'priority', job.priority, 'odd', '1')
    end
    if job.later then
      call('HSET', key, 'first', redis.sha1hex(job.payload))
    end
    if job.key then
      call('HSET', key, 'key', job.key, 'until', kind.till, 'hold', job.hold, 'clash', kind.clash, 'odd', '1')
    end
    if job.expires then
      call('HSET', key, 'expires', job.expires, 'odd', '1')
    end
    if job.deadline then
      call('HSET', key, 'deadline', job.deadline, 'odd', '1')
    end
    note_end(job)
  end

  local function write_all(stopped)
    if #made > 0 then
      if running then
        make_meta(running)
      end
      local all_of_them, ready, due = {}, {}, {}
      for n = 1, #made do
        local job = made[n]
        write(job)
        all_of_them[2 * n - 1], all_of_them[2 * n] = moment, job.id
        local into = job.state == 'queued' and ready or due
        into[#into + 1] = job.state == 'queued' and rank(job.priority, job.due) or job.due
        into[#into + 1] = job.id
      end
      call('ZADD', JOBS, unpack(all_of_them))
      if #due > 0 then
        call('ZADD', DUE, unpack(due))
      end
      if #ready > 0 then
        call('ZADD', READY, unpack(ready))
        ring()
      end
    end
    for i = 1, #steps, 2 do
      steps[i](steps[i + 1])
    end
    if drops > 0 then
      call('HINCRBY', META, 'dropped', drops)
    end

    -- Where the next search begins.
    local said_at, said_id = oldest()
    if said_at and not reached then
      reached = { at = said_at, id = said_id }
    end
    if reached and (#made > 0 or stopped) then
      for n = 1, #made do
        if not made[n].dropped and is_before(made[n], reached) then
          reached = made[n]
        end
      end
      if reached.id ~= said_id then
        set_oldest(reached.at, reached.id)
      end
    end
  end
  return receive, write_all, room
end
