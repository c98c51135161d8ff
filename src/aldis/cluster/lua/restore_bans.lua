#!lua flags=allow-oom
-- Puts a list of bans back whose last changes the server has lost.
--
-- KEYS, and ARGV 1 and 2, as in ban.lua. ARGV: 3 the bytes of the message that says so, 4 the version of the list, 5 that
-- of the node, whose bans it has, 6 how many versions are kept, then of each ban its field, entry and end. Returns whether
-- the list of the server was an older one.
local bans, ends, version = KEYS[1], KEYS[2], ARGV[4]
if tonumber(redis.call('HGET', bans, 'v') or 0) >= tonumber(version) then
  return 0
end
redis.call('DEL', bans, ends)
redis.call('HSET', bans, 'v', version)
redis.call('ZADD', KEYS[3], version, version, ARGV[5], ARGV[5])
redis.call('ZREMRANGEBYRANK', KEYS[3], 0, -1 - tonumber(ARGV[6]))
for place = 7, #ARGV, 3 do
  redis.call('HSET', bans, ARGV[place], ARGV[place + 1])
  if ARGV[place + 2] ~= '' then
    redis.call('ZADD', ends, ARGV[place + 2], ARGV[place])
  end
end
redis.call(ARGV[2], ARGV[1], ARGV[3])
return 1
