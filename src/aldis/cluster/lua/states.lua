-- Returns the fields and values of some users. KEYS: for each the counter of its bucket, and its hash.
--
-- It is the most frequent script, so it leaves all else to its caller. A user without a device has a version alone. It is
-- just below that of the next change in the bucket: as late as what a node may have heard, also when the server has lost
-- its data since.
local now
local rows = {}
for place = 1, #KEYS, 2 do
  local row = redis.call('HGETALL', KEYS[place + 1])
  if #row == 0 then
    if not now then
      local time = redis.call('TIME')
      now = time[1] * 1000000 + time[2] - 1
    end
    local last = tonumber(redis.call('GET', KEYS[place]) or 0)
    row = {'v', string.format('%.0f', math.max(last, now))}
  end
  rows[#rows + 1] = row
end
return rows
