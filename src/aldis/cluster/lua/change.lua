-- Changes a device of the user KEYS[2].
--
-- ARGV: 4 the user id, 5 the field of the device, 6 what its entry has to be; behind that the places in the entry to
-- change, each followed by the new value. Returns the state; nothing when that entry is not there.
local field = ARGV[5]
local user = read_user(KEYS[2], ARGV[4])
local device = user.devices[field]
if not device or device.entry ~= ARGV[6] then
  return false
end

-- The values in `packed` from `offset` on, each as its bytes: so what this release does not know stays as it is.
local function values(packed, offset)
  local found = {}
  while offset ~= -1 and offset < #packed do
    local behind = cmsgpack.unpack_one(packed, offset)
    found[#found + 1] = packed:sub(offset + 1, behind == -1 and #packed or behind)
    offset = behind
  end
  return found
end

-- Both arrays have fewer than 16 values, so their heads have one byte.
local ordered = values(device.packed, 1)
local entry = values(ordered[2], 1)
for place = 7, #ARGV, 2 do
  entry[tonumber(ARGV[place])] = ARGV[place + 1]
end
local changed = string.char(0x90 + #entry) .. table.concat(entry)
local version = next_number(0)
device.packed = '\146' .. ordered[1] .. changed
redis.call('HSET', user.key, field, device.packed)
return publish(user, version)
