-- A chain's filter, between the gateway and the engine, run anew for each attempt: from the second attempt on the body names the
-- fallback's own model, and so does the answer's version. NAMES and the functions of model_name.lua stand before this text.

function envoy_on_request(handle)
  local h = handle:headers()
  local attempt = tonumber(h:get("x-envoy-attempt-count") or "1")
  h:remove("x-envoy-attempt-count")
  local name = NAMES[attempt - 1]
  if not name then return end
  handle:streamInfo():dynamicMetadata():set("liftlock.fallback", "model", name)
  local body = handle:body(true)
  local s = body:getBytes(0, body:length())
  local first, last = find_model(s)
  local size = body:setBytes(s:sub(1, first - 1) .. name .. s:sub(last + 1))
  handle:headers():replace("content-length", tostring(size))
end

function envoy_on_response(handle)
  local served = handle:streamInfo():dynamicMetadata():get("liftlock.fallback")
  if served then handle:headers():replace("x-liftlock-version", served["model"]) end
end
