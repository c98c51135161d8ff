-- Binds the name KEYS[1] to the key ARGV[1] if it is free. Returns whether it was, then the key and the privacy.
local new = redis.call('HSETNX', KEYS[1], 'key', ARGV[1])
local row = redis.call('HMGET', KEYS[1], 'key', 'presence', 'offers', 'contacts', 'blocked')
return {new, unpack(row)}
