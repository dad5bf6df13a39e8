-- The last filter: the engine's name of the chosen version (the route's context) takes the place of the name in the body.
function envoy_on_request(handle)
  local h = handle:headers()
  local at = h:get("x-liftlock-name-at")
  if not at then return end
  h:remove("x-liftlock-name-at")
  local name = handle:filterContext():get("model")
  if not name then return end
  local first, last = at:match("^(%d+)-(%d+)$")
  local body = handle:body(true)
  local length = body:length()
  local size = body:setBytes(body:getBytes(0, first - 1) .. name .. body:getBytes(last, length - last))
  handle:headers():replace("content-length", tostring(size))
end

-- Tokens, where the answer tells them: its end is kept as it streams by, and nothing is buffered. Quotes inside an answer's text are
-- escaped, so no text can pose as usage. A stream tells them only where the request asked for it.
local KEPT = 2048

function envoy_on_response(handle)
  local metadata = handle:streamInfo():dynamicMetadata()
  local streamed = (handle:headers():get("content-type") or ""):find("event-stream", 1, true)
  if streamed then metadata:set("liftlock.tokens", "stream", true) end
  if streamed and not (metadata:get("liftlock.tokens") or {}).asked then return end
  local tail = ""
  for chunk in handle:bodyChunks() do
    local length = chunk:length()
    if length >= KEPT then
      tail = chunk:getBytes(length - KEPT, KEPT)
    else
      tail = (tail .. chunk:getBytes(0, length)):sub(-KEPT)
    end
  end
  local usage = tail:match('.*"usage"%s*:%s*(%b{})')
  if not usage then return end
  metadata = handle:streamInfo():dynamicMetadata() -- the one from before the wait is no longer valid
  for key, name in pairs({prompt = "prompt_tokens", completion = "completion_tokens"}) do
    local number = tonumber(usage:match('"' .. name .. '"%s*:%s*(%d+)'))
    if number then metadata:set("liftlock.tokens", key, number) end
  end
end
