#!lua flags=allow-oom
-- Adds a ban to the list of bans, or takes one off, and says it to all nodes: also when the memory is full.
--
-- KEYS: 1 the hash of the bans, with their version in 'v', 2 the sorted set of those that end, by their ends in
-- milliseconds, 3 the sorted set of the versions that it has gone through lately. ARGV: 1 the channel of all nodes, 2 the
-- command that publishes, 3 and 4 the bytes of the message before and behind the versions (aldis.cluster.messages), 5 the
-- field of the ban, 6 its entry, empty to take it off, 7 its end, empty for none, 8 how many bans there may be, 9 the
-- version that the node knows, 10 how many versions are kept. Returns 'full', 'same' (there is none to take off), or
-- 'done'.
--
-- A version is later than all before, and no less than the time in microseconds: so it grows also when the server has
-- lost its data. It is later than what the node knows, too: the clock of another server may be behind.
local bans, ends, field, entry = KEYS[1], KEYS[2], ARGV[5], ARGV[6]
local time = redis.call('TIME')

-- Those that have ended are not needed. A minute later, as the clocks of nodes may differ from this one.
for _, over in ipairs(redis.call('ZRANGEBYSCORE', ends, '-inf', (time[1] - 60) * 1000)) do
  redis.call('HDEL', bans, over)
  redis.call('ZREM', ends, over)
end

local known = redis.call('HEXISTS', bans, field) == 1
if entry == '' and not known then
  return 'same'
end
local previous = tonumber(redis.call('HGET', bans, 'v') or 0)
local count = redis.call('HLEN', bans) - (previous > 0 and 1 or 0)
if entry ~= '' and not known and count >= tonumber(ARGV[8]) then
  return 'full'
end

local version = math.max(previous + 1, tonumber(ARGV[9]) + 1, time[1] * 1000000 + time[2])
redis.call('HSET', bans, 'v', string.format('%.0f', version))
-- The first change of a list goes on from 0: so a node sees that the list was begun anew.
for _, passed in ipairs({previous, version}) do
  redis.call('ZADD', KEYS[3], string.format('%.0f', passed), string.format('%.0f', passed))
end
redis.call('ZREMRANGEBYRANK', KEYS[3], 0, -1 - tonumber(ARGV[10]))
redis.call('ZREM', ends, field)
if entry == '' then
  redis.call('HDEL', bans, field)
else
  redis.call('HSET', bans, field, entry)
  if ARGV[7] ~= '' then
    redis.call('ZADD', ends, ARGV[7], field)
  end
end
redis.call(ARGV[2], ARGV[1], ARGV[3] .. cmsgpack.pack(previous) .. cmsgpack.pack(version) .. ARGV[4])
return 'done'
