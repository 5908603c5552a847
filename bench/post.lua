-- wrk: POSTs the bodies of a file, a line each, in turn; prints its figures as one line of JSON.
-- The rate is taken from the first response to the last: what is under way at the end, which is
-- much for a slow server, does not count as time without responses.
local ffi = require("ffi")
ffi.cdef [[
  typedef struct { long seconds; long microseconds; } timeval;
  int gettimeofday(timeval *now, void *zone);
]]
local bodies = {}
local position = 0
local now = ffi.new("timeval")
local loader

responses, first, last = 0, 0, 0  -- of the one thread; read by done()

function setup(thread) loader = thread end

function init(args)
  for line in io.lines(args[1]) do bodies[#bodies + 1] = line end
end

function request()
  position = position % #bodies + 1
  return wrk.format("POST", nil, { ["Content-Type"] = "application/json" }, bodies[position])
end

function response()
  ffi.C.gettimeofday(now, nil)
  last = tonumber(now.seconds) + tonumber(now.microseconds) / 1e6
  if responses == 0 then first = last end
  responses = responses + 1
end

function done(summary, latency, requests)
  local count, seconds = loader:get("responses"), loader:get("last") - loader:get("first")
  io.write(string.format(
    'JSON {"requests": %d, "seconds": %f, "rate": %f, "errors": %d, "p50_ms": %f, "p99_ms": %f}\n',
    summary.requests, summary.duration / 1e6,
    count > 1 and seconds > 0 and (count - 1) / seconds or 0,
    summary.errors.connect + summary.errors.read + summary.errors.write
      + summary.errors.status + summary.errors.timeout,
    latency:percentile(50) / 1e3, latency:percentile(99) / 1e3))
end
