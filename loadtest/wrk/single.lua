-- One command a request, each with a fresh id: numbered per organisation, which are random.
local orgs = tonumber(os.getenv("ORGS") or "1000")
local threads = 0

function setup(thread)
  threads = threads + 1
  thread:set("number", threads)
end

function init()
  math.randomseed(number * 7919)
  ids = {}
  local format = 'POST /command HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n%s'
  local command = '{"type":"ledger","command":"deposit","id":%d,"timestamp":11178,'
    .. '"user":"load%d","org":"org%d","data":{"account":"cash","amount":%d}}'
  make = function(org)
    local id = (ids[org] or 0) + 1
    ids[org] = id
    local body = string.format(command, id, number, org, id % 100 + 1)
    return string.format(format, #body, body)
  end
end

function request()
  return make(math.random(orgs) - 1)
end
