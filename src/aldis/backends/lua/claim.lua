-- Binds the name KEYS[1] to the key ARGV[1] if it is free. Returns whether it was, then the key and the privacy.
local new = redis.call('HSETNX', KEYS[1], 'key', ARGV[1])
local row = redis.call('HMGET', KEYS[1], 'key', 'presence', 'offers', 'contacts', 'blocked')
if new == 0 then
  -- Another call may have bound it, and still wait for the disk. WAITAOF waits for a write of this connection.
  redis.call('HSET', KEYS[1], 'key', row[1])
end
return {new, unpack(row)}
