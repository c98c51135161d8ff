-- What the scripts of the presence table share; it stands before each of them.
--
-- KEYS[1]: the counter of the bucket. ARGV: 1 the channel of the bucket, 2 the command that publishes, 3 what the names
-- of the sets of the nodes begin with. The names of those sets, and in reap.lua of the users' hashes, are made here: no
-- caller knows at which node the device is that a script removes. They have the hash tag of the bucket.
--
-- A user is a hash: 'v' the version, 'p' the privacy unless it is the default, and for each device 'd' and its name with
-- [order, entry]. A user without a device has no hash. What an entry is: aldis.cluster.states.
local COUNTER, CHANNEL, PUBLISH, NODES = KEYS[1], ARGV[1], ARGV[2], ARGV[3]

-- A later number than all that the bucket has had, and than `least`. It is no less than the time in microseconds, so it
-- grows also when the server has lost its data, or the last moment of them. Below 2^53, a number of Lua is exact.
local function next_number(least)
  local time = redis.call('TIME')
  local last = tonumber(redis.call('GET', COUNTER) or 0)
  local number = math.max(last + 1, least + 1, time[1] * 1000000 + time[2])
  redis.call('SET', COUNTER, string.format('%.0f', number))
  return number
end

-- The part of an entry that is read here.
local function read_entry(entry)
  local device = {entry = entry[2], node = entry[3], key = entry[4], proves = entry[5]}
  assert(type(device.entry) == 'string' and type(device.node) == 'string')
  return device
end

local function read_device(packed)
  local ordered = cmsgpack.unpack(packed)
  local device = read_entry(ordered[2])
  device.order, device.packed = ordered[1], packed
  assert(type(device.order) == 'number')
  return device
end

local function read_user(key, id)
  local user = {key = key, id = id, devices = {}, count = 0, version = 0}
  local row = redis.call('HGETALL', key)
  for place = 1, #row, 2 do
    local field, value = row[place], row[place + 1]
    if field == 'v' then
      user.version = tonumber(value)
    elseif field == 'p' then
      user.privacy = value
    elseif field:sub(1, 1) == 'd' then
      local good, device = pcall(read_device, value)
      if not good then
        error('GARBLED the entry of a device in ' .. key, 0)
      end
      user.devices[field] = device
      user.count = user.count + 1
    end
  end
  return user
end

-- The bytes of a state (aldis.cluster.states).
local function state_of(user)
  local devices = {}
  for _, device in pairs(user.devices) do
    devices[#devices + 1] = device
  end
  table.sort(devices, function(one, other) return one.order > other.order end)
  for place, device in ipairs(devices) do
    devices[place] = device.packed
  end
  local count = #devices
  local head = count < 16 and string.char(0x90 + count) or '\220' .. struct.pack('>I2', count)
  return table.concat({
    '\149\1', cmsgpack.pack(user.id), cmsgpack.pack(user.version), head, table.concat(devices), user.privacy or '\192',
  })
end

-- Says the user's new state to all nodes, and returns it.
local function publish(user, version)
  user.version = version
  if user.count == 0 then
    user.privacy = nil
    redis.call('DEL', user.key)
  else
    redis.call('HSET', user.key, 'v', string.format('%.0f', version))
  end
  local state = state_of(user)
  redis.call(PUBLISH, CHANNEL, state)
  return state
end

-- After a device of this node has gone.
local function see_node(user, node)
  for _, device in pairs(user.devices) do
    if device.node == node then
      return
    end
  end
  redis.call('SREM', NODES .. node, user.id)
end

local function remove(user, field)
  local device = user.devices[field]
  user.devices[field] = nil
  user.count = user.count - 1
  redis.call('HDEL', user.key, field)
  see_node(user, device.node)
end

-- Puts a device in place of the one of that name.
local function put(user, field, entry, order)
  local before = user.devices[field]
  local device = read_entry(cmsgpack.unpack(entry))
  device.order, device.packed = order, '\146' .. cmsgpack.pack(order) .. entry
  user.devices[field] = device
  redis.call('HSET', user.key, field, device.packed)
  if not before then
    user.count = user.count + 1
  elseif before.node ~= device.node then
    see_node(user, before.node)
  end
  redis.call('SADD', NODES .. device.node, user.id)
end

-- Whether the node has been removed (reap.lua leaves a mark): what it enters would stay for ever.
local function is_lost(node)
  return redis.call('SISMEMBER', NODES .. node, '') == 1
end

-- Whether somebody else has the name without a proof, or the proof of the device does not go with those of the others.
-- Which key is right, the directory says: while a key is rotated, devices with the old one are there for a moment.
local function is_taken(user, device)
  for _, other in pairs(user.devices) do
    if other.proves ~= device.proves or (not device.proves and other.key ~= device.key) then
      return true
    end
  end
  return false
end
