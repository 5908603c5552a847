-- wrk: POSTs the bodies of a file, a line each, in turn; prints its figures as one line of JSON.
-- Arguments: the file, the body to begin with, seconds of warm-up, and of the window after it. The
-- rate is the number of 2xx answers within the window over its length, so that a server that
-- answers in bursts gains nothing by when they are.
local ffi = require("ffi")
ffi.cdef [[
  typedef struct { long seconds; long microseconds; } timeval;
  int gettimeofday(timeval *now, void *zone);
]]
local bodies = {}
local position, begins, ends = 0, 0, 0
local started
local now = ffi.new("timeval")
local loader

answers = 0  -- of the one thread; read by done()

local function clock()
  ffi.C.gettimeofday(now, nil)
  return tonumber(now.seconds) + tonumber(now.microseconds) / 1e6
end

function setup(thread) loader = thread end

function init(args)
  for line in io.lines(args[1]) do bodies[#bodies + 1] = line end
  position = tonumber(args[2])
  begins = tonumber(args[3])
  ends = begins + tonumber(args[4])
  window = tonumber(args[4])
end

function request()
  started = started or clock()
  position = position % #bodies + 1
  return wrk.format("POST", nil, { ["Content-Type"] = "application/json" }, bodies[position])
end

function response(status)
  local seconds = clock() - started
  if status < 300 and seconds >= begins and seconds < ends then answers = answers + 1 end
end

function done(summary, latency, requests)
  io.write(string.format(
    'JSON {"requests": %d, "seconds": %f, "rate": %f, "errors": %d, "p50_ms": %f, "p99_ms": %f}\n',
    summary.requests, summary.duration / 1e6, loader:get("answers") / loader:get("window"),
    summary.errors.connect + summary.errors.read + summary.errors.write
      + summary.errors.status + summary.errors.timeout,
    latency:percentile(50) / 1e3, latency:percentile(99) / 1e3))
end
