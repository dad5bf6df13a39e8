-- A shadow's filter, between the gateway and the engine: the copy asks as the candidate (NAME), under an id of its own. NAME and the
-- functions of model_name.lua stand before this text.

function envoy_on_request(handle)
  local h = handle:headers()
  local id = h:get("x-request-id")
  if id then h:replace("x-request-id", id .. "-shadow") end
  h:remove("x-envoy-attempt-count")
  local body = handle:body(true)
  local s = body:getBytes(0, body:length())
  local first, last = find_model(s)
  local size = body:setBytes(s:sub(1, first - 1) .. NAME .. s:sub(last + 1))
  handle:headers():replace("content-length", tostring(size))
end
