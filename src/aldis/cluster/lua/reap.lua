#!lua flags=allow-oom
-- Removes the devices of a node that is lost from some users of a bucket: also when the memory is full.
--
-- ARGV: 4 the node, 5 what the names of the users' hashes begin with, 6 how many users at most, 7 for how many seconds
-- to remember that the node is lost. Returns how many users it has had there, how many are left, and each user that is
-- offline now, with the version.
local node, most = ARGV[4], tonumber(ARGV[6])
local users = NODES .. node
redis.call('SADD', users, '')
redis.call('EXPIRE', users, ARGV[7])
local done, offline = 0, {}
-- One more, as the mark may be among them.
for _, id in ipairs(redis.call('SRANDMEMBER', users, most + 1)) do
  if id ~= '' and done < most then
    -- One that cannot be read stays: whoever calls for this user hears of it.
    local good, user = pcall(read_user, ARGV[5] .. id, id)
    local found = false
    for field, device in pairs(good and user.devices or {}) do
      if device.node == node then
        found = true
        remove(user, field)
      end
    end
    if found then
      local version = next_number(0)
      publish(user, version)
      if user.count == 0 then
        offline[#offline + 1] = id
        offline[#offline + 1] = string.format('%.0f', version)
      end
    else
      redis.call('SREM', users, id)
    end
    done = done + 1
  end
end
return {done, redis.call('SCARD', users) - 1, offline}
