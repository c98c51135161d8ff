-- Binds the name KEYS[1] to the fields and values in ARGV, whatever it was bound to.
redis.call('DEL', KEYS[1])
redis.call('HSET', KEYS[1], unpack(ARGV))
return 1
