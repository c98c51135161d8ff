-- Changes the privacy of the name KEYS[1] that is bound to ARGV[1].
--
-- ARGV: 1 key; 2 presence and 3 offers, empty to leave them; names to 4 add to and 5 remove from the contacts, to 6 block
-- and 7 unblock, with a line end after each; the most 8 names of a list and 9 bytes of both; 10 the default of 2 and 3.
-- Returns 'unbound', 'too large', or 'changed' with presence, offers, contacts and blocked.
-- What counts as a byte is said in aldis.protocol.privacy.
local row = redis.call('HMGET', KEYS[1], 'key', 'presence', 'offers', 'contacts', 'blocked')
if row[1] ~= ARGV[1] then
  return {'unbound'}
end

local bytes = 0

local function changed(names, added, removed)
  local skipped, kept, count = {}, {}, 0
  for name in removed:gmatch('([^\n]*)\n') do
    skipped[name] = true
  end
  local function keep(name)
    if not skipped[name] then
      skipped[name] = true
      count = count + 1
      kept[count] = name .. '\n'
      bytes = bytes + #name + 3 + select(2, name:gsub('["\\]', ''))
    end
  end
  for name in names:gmatch('([^\n]*)\n') do
    keep(name)
  end
  for name in added:gmatch('([^\n]*)\n') do
    keep(name)
  end
  return table.concat(kept), count
end

local function chosen(word, before)
  return word ~= '' and word or before or ARGV[10]
end

local presence, offers = chosen(ARGV[2], row[2]), chosen(ARGV[3], row[3])
local contacts, friends = changed(row[4] or '', ARGV[4], ARGV[5])
local blocked, enemies = changed(row[5] or '', ARGV[6], ARGV[7])
local most = tonumber(ARGV[8])
local adds = ARGV[4] ~= '' or ARGV[6] ~= ''
if adds and (friends > most or enemies > most or bytes > tonumber(ARGV[9])) then
  return {'too large'}
end

if presence == ARGV[10] and offers == ARGV[10] and contacts == '' and blocked == '' then
  redis.call('HDEL', KEYS[1], 'presence', 'offers', 'contacts', 'blocked')
else
  redis.call('HSET', KEYS[1], 'presence', presence, 'offers', offers, 'contacts', contacts, 'blocked', blocked)
end
return {'changed', presence, offers, contacts, blocked}
