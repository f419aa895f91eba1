-- wrk script: every second request submits a task, every other one reads the result of one made before.
-- At the end it prints how many of the answers were the right ones.

local headers = { ["Authorization"] = "Bearer local-key", ["Content-Type"] = "application/json" }
local submit = "/api/v3/wavespeed-ai/bitdance-14b/text-to-image"
local made, asked, threads = {}, 0, {}

right, wrong = 0, 0

function setup(thread)
  table.insert(threads, thread)
end

function request()
  asked = asked + 1
  if asked % 2 == 0 and #made > 0 then
    local id = made[asked % #made + 1]
    return wrk.format("GET", "/api/v3/predictions/" .. id .. "/result", headers)
  end
  return wrk.format("POST", submit, headers, '{"prompt": "lighthouse number ' .. asked .. '", "seed": 7}')
end

function response(status, _, body)
  local id = string.match(body, '"id":"(%x+)"')
  if status == 200 and id then
    right = right + 1
    if #made < 1000 then made[#made + 1] = id end
  else
    wrong = wrong + 1
  end
end

function done(summary, latency)
  local right_in_all, wrong_in_all = 0, 0
  for _, thread in ipairs(threads) do
    right_in_all = right_in_all + thread:get("right")
    wrong_in_all = wrong_in_all + thread:get("wrong")
  end
  io.write(string.format("right answers: %d, wrong: %d, p99: %.1f ms\n",
    right_in_all, wrong_in_all, latency:percentile(99) / 1000))
end
