-- One body over and over: wrk builds the request once, and no Lua runs while it is sent.
-- Environment: BODY, a file; CONTENT_TYPE. Prints what it counted as one line of JSON.

local file = assert(io.open(os.getenv("BODY"), "rb"))
wrk.method = "POST"
wrk.body = file:read("*a")
wrk.headers["Content-Type"] = os.getenv("CONTENT_TYPE")
file:close()

local LINE = '\nRESULT {"seconds":%.6f,"requests":%d,"p50_ms":%.3f,"p99_ms":%.3f,"p999_ms":%.3f,'
  .. '"max_ms":%.3f,"mean_ms":%.3f,"refused":%d,"timeouts":%d,"broken":%d}\n'

function done(summary, latency, requests)
  local errors = summary.errors
  io.write(LINE:format(
    summary.duration / 1e6, summary.requests,
    latency:percentile(50) / 1e3, latency:percentile(99) / 1e3, latency:percentile(99.9) / 1e3,
    latency.max / 1e3, latency.mean / 1e3,
    errors.status, errors.timeout, errors.connect + errors.read + errors.write))
end
