-- Enters a device of the user KEYS[2] again, with the order that it has had.
--
-- ARGV: 4 the user id, 5 the field of the device, 6 its entry, 7 the user's privacy, empty for the default, 8 the order.
-- Returns 'lost', 'taken', 'replaced', or 'entered', the state, and whether the user was offline before. It publishes
-- nothing when all is as it was.
local field, entry, order = ARGV[5], ARGV[6], tonumber(ARGV[8])
local device = read_entry(cmsgpack.unpack(entry))
if is_lost(device.node) then
  return {'lost'}
end
local user = read_user(KEYS[2], ARGV[4])
local before = user.devices[field]
if before and (before.order > order or (before.order == order and before.entry ~= device.entry)) then
  return {'replaced'}
end
if is_taken(user, device) then
  return {'taken'}
end
if before and before.packed == '\146' .. cmsgpack.pack(order) .. entry then
  return {'entered', state_of(user), 0}
end

local version, came = next_number(order), user.count == 0
if came and ARGV[7] ~= '' then
  user.privacy = ARGV[7]
  redis.call('HSET', user.key, 'p', user.privacy)
end
put(user, field, entry, order)
return {'entered', publish(user, version), came and 1 or 0}
