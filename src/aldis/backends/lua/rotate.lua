-- Binds the name KEYS[1] to ARGV[2] if it is bound to ARGV[1]. Returns whether it is bound to ARGV[2] now.
local key = redis.call('HGET', KEYS[1], 'key')
if key == ARGV[1] and key ~= ARGV[2] then
  redis.call('HSET', KEYS[1], 'key', ARGV[2])
  key = ARGV[2]
end
return key == ARGV[2] and 1 or 0
