#!/usr/bin/env bash
# Requests a second of the local service on one core: submit and result mixed, pictures in fast mode.
# Usage: benchmarks/local_service/run.sh [python]      SECONDS_LONG=10 CONNECTIONS=32 PORT=8790
# Needs wrk and taskset, and two cores: the service on core 0, the load on core 1.
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
python=${1:-python}
port=${PORT:-8790}

taskset -c 0 "$python" -m airflow_provider_bitdance.local \
    --port "$port" --latency 2 --balance 1000000 --pictures fast &
service=$!
trap 'kill "$service" 2>/dev/null; wait "$service" || true' EXIT

for _ in $(seq 100); do
  if (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null; then break; fi
  kill -0 "$service"
  sleep 0.1
done

taskset -c 1 wrk --threads 1 --connections "${CONNECTIONS:-32}" --duration "${SECONDS_LONG:-10}s" \
    --script "$here/mixed.lua" "http://127.0.0.1:$port"
