#!lua flags=allow-oom
-- Ends the lease of the node ARGV[1], if it has one: the node is lost at once.
return redis.call('ZADD', KEYS[1], 'XX', 0, ARGV[1])
