-- Changes the privacy of the user KEYS[2], while the user has a device.
--
-- ARGV: 4 the user id, 5 the privacy, empty for the default. Returns the state; nothing for a user without a device.
local user = read_user(KEYS[2], ARGV[4])
local privacy = ARGV[5] ~= '' and ARGV[5] or nil
if user.count == 0 then
  return false
end
if user.privacy == privacy then
  return state_of(user)
end
local version = next_number(0)
user.privacy = privacy
if privacy then
  redis.call('HSET', user.key, 'p', privacy)
else
  redis.call('HDEL', user.key, 'p')
end
return publish(user, version)
