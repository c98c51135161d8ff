-- Binds the name KEYS[1] to ARGV[2] if it is bound to ARGV[1]. Returns whether it is bound to ARGV[2] now.
local key = redis.call('HGET', KEYS[1], 'key')
if key ~= ARGV[1] and key ~= ARGV[2] then
  return 0
end
-- Also when it is that already: see claim.lua.
redis.call('HSET', KEYS[1], 'key', ARGV[2])
return 1
