#!lua flags=allow-oom
-- Notes that an operator releases the name ARGV[1]: also when the memory is full, as a release makes room.
--
-- KEYS[1] has each name with the time in seconds. ARGV: 2 for how many seconds to keep one, 3 how many at most.
local now = tonumber(redis.call('TIME')[1])
redis.call('ZADD', KEYS[1], now, ARGV[1])
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now - ARGV[2])
redis.call('ZREMRANGEBYRANK', KEYS[1], 0, -1 - ARGV[3])
return 1
