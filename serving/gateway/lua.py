"""The gateway's Lua as text: READ_NAME copies the model's name into a header, REWRITE_NAME replaces it in the body."""

from __future__ import annotations

from pathlib import Path

MODEL_HEADER = "x-gateway-base-model-name"
LUA = Path(__file__).with_name("model_name.lua").read_text()

READ_NAME = f"""
function envoy_on_request(handle)
  handle:headers():remove("{MODEL_HEADER}")
  if handle:headers():get(":method") ~= "POST" then return end
  local body = handle:body(true)
  local s = body:getBytes(0, body:length())
  local first, last = find_model(s)
  if not first then return refuse(handle, last) end
  handle:headers():replace("{MODEL_HEADER}", s:sub(first, last))
  handle:clearRouteCache()
end
"""

REWRITE_NAME = """
function envoy_on_request(handle)
  local body = handle:body(true)
  local s = body:getBytes(0, body:length())
  local first, last = find_model(s)
  local size = body:setBytes(s:sub(1, first - 1) .. "%s" .. s:sub(last + 1))
  handle:headers():replace("content-length", tostring(size))
end
"""

NOTHING = "function envoy_on_request(handle) end"
