-- Forgets the node ARGV[1] if it is lost. Returns whether it was.
if tonumber(redis.call('ZSCORE', KEYS[1], ARGV[1]) or 1) > 0 then
  return 0
end
return redis.call('ZREM', KEYS[1], ARGV[1])
