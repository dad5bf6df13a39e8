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
