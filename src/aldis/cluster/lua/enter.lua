-- Enters a device of the user KEYS[2].
--
-- ARGV: 4 the user id, 5 the field of the device, 6 its entry, 7 the user's privacy, empty for the default, 8 the most
-- devices of a user. Returns 'lost', 'taken', 'full', or 'entered', the state, and whether the user was offline before.
-- The privacy of a user who is online stays: each change of it comes by privacy.lua, and what the caller read may be
-- older.
local field, entry = ARGV[5], ARGV[6]
local device = read_entry(cmsgpack.unpack(entry))
if is_lost(device.node) then
  return {'lost'}
end
local user = read_user(KEYS[2], ARGV[4])
if is_taken(user, device) then
  return {'taken'}
end
if not user.devices[field] and user.count >= tonumber(ARGV[8]) then
  return {'full'}
end

local order, came = next_number(0), user.count == 0
if came and ARGV[7] ~= '' then
  user.privacy = ARGV[7]
  redis.call('HSET', user.key, 'p', user.privacy)
end
put(user, field, entry, order)
return {'entered', publish(user, order), came and 1 or 0}
