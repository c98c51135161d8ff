#!lua flags=allow-oom
-- Removes a device of the user KEYS[2]: also when the memory is full.
--
-- ARGV: 4 the user id, 5 the field of the device, 6 what its entry has to be. Returns the state; nothing when that entry
-- is not there.
local user = read_user(KEYS[2], ARGV[4])
local device = user.devices[ARGV[5]]
if not device or device.entry ~= ARGV[6] then
  return false
end
local version = next_number(0)
remove(user, ARGV[5])
return publish(user, version)
