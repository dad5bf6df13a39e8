-- The first filter: who asks (KEYS, where keys are required), the request's ids, and the model's name out of the body.
-- KEYS, REQUIRED and the functions of model_name.lua and sha256.lua stand before this text.

local function refuse(handle, status, said, param, code)
  local h = handle:headers()
  handle:respond({[":status"] = tostring(status), ["content-type"] = "application/json", ["traceparent"] = h:get("traceparent"),
    ["www-authenticate"] = status == 401 and "Bearer" or nil},
    '{"error":{"message":"' .. said .. '","type":"invalid_request_error","param":' .. param .. ',"code":' .. code .. '}}')
end

-- Of the id that Envoy made come the trace's id and the parent's; a well-formed id of the client then takes its place.
local function correlate(h)
  local own = h:get("x-request-id")
  local parent = h:get("traceparent")
  if not parent or #parent ~= 55 or not parent:find("^00%-%x+%-%x+%-%x%x$") or parent:find("%u") or parent:byte(36) ~= 45
    or parent:find("^00%-0+%-") or parent:find("^%-0+%-", 36) then
    local hex = own:gsub("-", "")
    h:replace("traceparent", "00-" .. hex .. "-" .. hex:sub(17) .. "-01")
    h:remove("tracestate")
  end
  local asked = h:get("x-liftlock-asked-id")
  if asked then
    h:remove("x-liftlock-asked-id")
    if #asked <= 128 and asked:find("^%w[%w._:-]*$") then h:replace("x-request-id", asked) end
  end
end

-- Returns the client, or nil after it was refused.
local function authenticate(handle, h)
  local token = (h:get("authorization") or ""):match("^[Bb]earer +([%w_-]+) *$")
  h:remove("authorization")
  local client = token and #token <= 128 and KEYS[sha256(token)]
  if not client then
    refuse(handle, 401, token and "this API key is not known here or was revoked; ask for one by `liftlock apikey add`"
      or "an API key is required: send it as `Authorization: Bearer KEY`", "null", '"invalid_api_key"')
    return nil
  end
  h:replace("x-liftlock-client", client.name)
  if client.name ~= "liftlock" then h:remove("x-liftlock-purpose") end -- only the release's own requests are no client's
  return client
end

function envoy_on_request(handle)
  local h = handle:headers()
  correlate(h)
  local client
  if REQUIRED then
    client = authenticate(handle, h)
    if not client then return end
    handle:clearRouteCache()
  end
  local card = h:get(":path"):match("^/v1/models/([^?#]+)")
  if card and client and client.models and not client.models[card] then
    return refuse(handle, 403, "this API key may not ask for this model", '"model"', '"model_not_allowed"')
  end
  if h:get(":method") ~= "POST" or not PATHS[h:get(":path"):match("^[^?#]*")] then return end
  local body = handle:body(true)
  local s = body:getBytes(0, body:length())
  local first, last = find_model(s)
  if not first then return refuse(handle, 400, last, '"model"', "null") end
  local name = s:sub(first, last)
  if client and client.models and not client.models[name] then
    return refuse(handle, 403, "this API key may not ask for this model", '"model"', '"model_not_allowed"')
  end
  h = handle:headers() -- the one from before the wait for the body is no longer valid
  h:replace("x-gateway-base-model-name", name)
  h:replace("x-liftlock-name-at", first .. "-" .. last)
  if s:find('"include_usage"', 1, true) then handle:streamInfo():dynamicMetadata():set("liftlock.tokens", "asked", true) end
  handle:clearRouteCache()
end
