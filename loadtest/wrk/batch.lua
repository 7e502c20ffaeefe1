-- A hundred commands a request, each with a fresh id: numbered per organisation. ONE_ORG=1: all of a request of one
-- organisation; otherwise each of a random one.
local orgs = tonumber(os.getenv("ORGS") or "1000")
local size = tonumber(os.getenv("SIZE") or "100")
local one = os.getenv("ONE_ORG") == "1"
local threads = 0

function setup(thread)
  threads = threads + 1
  thread:set("number", threads)
end

function init()
  math.randomseed(number * 7919)
  ids = {}
end

local format = 'POST /commands HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n%s'
local command = '{"type":"ledger","command":"deposit","id":%d,"timestamp":11178,'
  .. '"user":"load%d","org":"org%d","data":{"account":"cash","amount":%d}}'

function request()
  local commands = {}
  local org = math.random(orgs) - 1
  for n = 1, size do
    if not one then org = math.random(orgs) - 1 end
    local id = (ids[org] or 0) + 1
    ids[org] = id
    commands[n] = string.format(command, id, number, org, id % 100 + 1)
  end
  local body = "[" .. table.concat(commands, ",") .. "]"
  return string.format(format, #body, body)
end
