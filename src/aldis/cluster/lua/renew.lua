#!lua flags=allow-oom
-- Renews the lease of a node, and says which nodes there are: also when the memory is full.
--
-- KEYS[1] has each node with the end of its lease, in milliseconds of this server's clock; 0: the node is lost.
-- ARGV: 1 the node, 2 'enter' for a new one, else 'renew', 3 how long a lease is, 4 when this node had its last answer,
-- 5 since when its answers came without a gap, 6 what counts as a gap: all in milliseconds, the times of this clock;
-- 7 the run id of the server that gave the last answer.
-- Returns whether the node holds its lease, the time, the nodes that are alive, those that are lost, and the run id.
--
-- A lease that has ended is renewed as long as nobody has counted the node as lost. So nobody does who has had no answer
-- for a while either: after an outage of the server all leases have ended, and no node is lost. It is the same at another
-- server than before: a master that takes over may have old leases.
local nodes, node, lease = KEYS[1], ARGV[1], tonumber(ARGV[3])
local last, since, gap = tonumber(ARGV[4]), tonumber(ARGV[5]), tonumber(ARGV[6])
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)

local run = string.match(redis.call('INFO', 'server'), 'run_id:(%w+)')

local held = ARGV[2] == 'enter' or tonumber(redis.call('ZSCORE', nodes, node) or 0) > 0
if held then
  redis.call('ZADD', nodes, now + lease, node)
  -- The clock has been set back: a node that is killed would count as alive until the time of before.
  for _, far in ipairs(redis.call('ZRANGEBYSCORE', nodes, now + lease + 1, '+inf')) do
    redis.call('ZADD', nodes, now + lease, far)
  end
  if now - last <= gap and now - since >= lease and run == ARGV[7] then
    for _, late in ipairs(redis.call('ZRANGEBYSCORE', nodes, '(0', now)) do
      redis.call('ZADD', nodes, 0, late)
    end
  end
end
local alive = redis.call('ZRANGEBYSCORE', nodes, '(0', '+inf')
return {held and 1 or 0, now, alive, redis.call('ZRANGEBYSCORE', nodes, 0, 0), run}
