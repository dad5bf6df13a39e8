-- SHA-256 (FIPS 180-4) of a string, as 64 hexadecimal digits: API keys are kept as digests, and Envoy has no hash for Lua.
local band, bxor, bnot, ror, rshift, tobit, tohex = bit.band, bit.bxor, bit.bnot, bit.ror, bit.rshift, bit.tobit, bit.tohex
local K, START = {}, {}

do -- fractional parts, 32 bits of them, of the cube roots of the first 64 primes and the square roots of the first 8
  local n = 2
  while #K < 64 do
    local prime = true
    for d = 2, math.floor(math.sqrt(n)) do prime = prime and n % d ~= 0 end
    if prime then
      K[#K + 1] = tobit(math.floor(n ^ (1 / 3) % 1 * 2 ^ 32))
      if #START < 8 then START[#START + 1] = tobit(math.floor(math.sqrt(n) % 1 * 2 ^ 32)) end
    end
    n = n + 1
  end
end

local function word(s, at)
  local a, b, c, d = s:byte(at, at + 3)
  return bit.bor(bit.lshift(a, 24), bit.lshift(b, 16), bit.lshift(c, 8), d)
end

local function block(s, at, H, w)
  for i = 1, 16 do w[i] = word(s, at + 4 * (i - 1)) end
  for i = 17, 64 do
    local x, y = w[i - 15], w[i - 2]
    local s0 = bxor(ror(x, 7), ror(x, 18), rshift(x, 3))
    local s1 = bxor(ror(y, 17), ror(y, 19), rshift(y, 10))
    w[i] = tobit(w[i - 16] + s0 + w[i - 7] + s1)
  end
  local a, b, c, d, e, f, g, h = unpack(H)
  for i = 1, 64 do
    local s1 = bxor(ror(e, 6), ror(e, 11), ror(e, 25))
    local t1 = tobit(h + s1 + bxor(band(e, f), band(bnot(e), g)) + K[i] + w[i])
    local s0 = bxor(ror(a, 2), ror(a, 13), ror(a, 22))
    local t2 = tobit(s0 + bxor(band(a, b), band(a, c), band(b, c)))
    h, g, f, e, d, c, b, a = g, f, e, tobit(d + t1), c, b, a, tobit(t1 + t2)
  end
  for i, v in ipairs({a, b, c, d, e, f, g, h}) do H[i] = tobit(H[i] + v) end
end

local function sha256(s)
  local bits = #s * 8 -- below 2^32: what is hashed here is a key
  local padded = s .. "\128" .. ("\0"):rep((55 - #s) % 64) .. "\0\0\0\0"
    .. string.char(rshift(bits, 24), band(rshift(bits, 16), 255), band(rshift(bits, 8), 255), band(bits, 255))
  local H, w = {unpack(START)}, {}
  for at = 1, #padded, 64 do block(padded, at, H, w) end
  local out = {}
  for i = 1, 8 do out[i] = tohex(H[i]) end
  return table.concat(out)
end
