#!/usr/bin/env bash
# Ray 2.60: a cluster that is started where ~/.ray/auth_token exists (the first ray.init() of a user
# writes it) asks for that token. ray.init("auto") on the same machine finds it by itself; Ray's
# client does not look for it, and times out after half a minute with no word of a token, unless
# RAY_AUTH_MODE=token is set. Exits 0 as long as that is so.
set -euo pipefail
folder=$(mktemp -d)
export HOME="$folder" RAY_USAGE_STATS_ENABLED=0 RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO=0
unset RAY_AUTH_MODE RAY_AUTH_TOKEN RAY_AUTH_TOKEN_PATH RAY_ADDRESS || true
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check 'ray[client]==2.60.0'
cd "$folder"
mkdir .ray
printf '%064d' 0 > .ray/auth_token
PATH="$folder/venv/bin:$PATH" ray start --head --block --port=6399 \
    --ray-client-server-port=10099 --num-cpus=1 --include-dashboard=false >/dev/null 2>&1 &
trap 'kill $! 2>/dev/null; wait; rm -rf "$folder"' EXIT
for _ in $(seq 120); do
    (echo > /dev/tcp/127.0.0.1/10099) 2>/dev/null && break
    sleep 1
done
joins() { "$folder/venv/bin/python" -c "import ray, sys; ray.init(sys.argv[1]); print('joined', sys.argv[1])" "$1"; }
joins auto
if joins ray://127.0.0.1:10099 2>"$folder/said"; then
    echo "behaviour changed: the client joins without being told of the token"
    exit 1
fi
tail -n 1 "$folder/said"
if grep -qi token "$folder/said"; then
    echo "behaviour changed: it speaks of a token"
    exit 1
fi
RAY_AUTH_MODE=token joins ray://127.0.0.1:10099
