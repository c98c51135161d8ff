-- Changes the privacy of the user KEYS[2], while the user has a device.
--
-- ARGV: 4 the user id, 5 the privacy, empty for the default, 6 the version of the user that the node knows. Returns the
-- state; nothing for a user without a device.
--
-- To change nothing is no news. But when the node knows a later version, it knows of a change that the server has lost,
-- and so may others: then all hear of the privacy that there is.
local user = read_user(KEYS[2], ARGV[4])
local privacy = ARGV[5] ~= '' and ARGV[5] or nil
if user.count == 0 then
  return false
end
local known = tonumber(ARGV[6] or 0)
if user.privacy == privacy and user.version >= known then
  return state_of(user)
end
local version = next_number(known)
user.privacy = privacy
if privacy then
  redis.call('HSET', user.key, 'p', privacy)
else
  redis.call('HDEL', user.key, 'p')
end
return publish(user, version)
