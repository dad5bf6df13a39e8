-- Reads the model's name out of an OpenAI request body, and rewrites it where the route says so.
-- The body is scanned, not searched: only a top-level "model" counts. Escaped or repeated keys are refused, because the
-- engine's parser could see another name than the one that was checked here. What is wrong inside other values is left to
-- the engine to refuse.

-- Quotes are found by a plain search, which is many times faster than a pattern on a prompt of hundreds of kilobytes.
local function skip_string(s, at)
  local start = at
  while true do
    local found = s:find('"', at, true)
    if not found then return nil end
    local before = found - 1
    while before >= start and s:byte(before) == 92 do before = before - 1 end
    if (found - before) % 2 == 1 then return found end
    at = found + 1
  end
end

local function skip_nested(s, at)
  local depth = 0
  while true do
    local found = s:find('["%[%]{}]', at)
    if not found then return nil end
    local c = s:byte(found)
    if c == 34 then
      found = skip_string(s, found + 1)
      if not found then return nil end
    elseif c == 91 or c == 123 then
      depth = depth + 1
    else
      depth = depth - 1
    end
    at = found + 1
    if depth == 0 then return at end
  end
end

-- Returns first and last position of the model's name (without quotes), or nil and what is wrong.
local function find_model(s)
  local at = s:match('^%s*{()')
  if not at then return nil, "the body is not a JSON object" end
  local first, last
  while true do
    local key_at = s:match('^%s*"()', at)
    if not key_at then return nil, first and "the body is not valid JSON" or "model is missing" end
    local key_end = skip_string(s, key_at)
    if not key_end then return nil, "the body is not valid JSON" end
    local key = s:sub(key_at, key_end - 1)
    if key:find('\\', 1, true) then return nil, "escaped keys are refused" end
    local value = s:match('^%s*:%s*()', key_end + 1)
    if not value then return nil, "the body is not valid JSON" end
    local c = s:byte(value)
    local after
    if c == 34 then
      local value_end = skip_string(s, value + 1)
      if not value_end then return nil, "the body is not valid JSON" end
      if key == "model" then
        if first then return nil, "model is given twice" end
        first, last = value + 1, value_end - 1
        if s:sub(first, last):find('[\\%c]') then return nil, "a model name with escapes is refused" end
      end
      after = value_end + 1
    elseif key == "model" then
      return nil, "model must be a string"
    elseif c == 91 or c == 123 then
      after = skip_nested(s, value)
    else
      after = s:match('^[^,}%s]+()', value)
    end
    if not after then return nil, "the body is not valid JSON" end
    at = s:match('^%s*,()', after)
    if not at then
      if not s:match('^%s*}%s*$', after) then return nil, "the body is not valid JSON" end
      if not first then return nil, "model is missing" end
      return first, last
    end
  end
end
