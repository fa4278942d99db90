#!/usr/bin/env bash
# darktable's Lua: format:write_image() returns false when the picture was written and true when it was not;
# darktable.control.execute() returns what wait() says, so 768 for a command that ends with 3. And a slider that is made
# with its limits and its value in one table has the value or 0, by the order in which Lua walks the table, which differs
# from run to run. Seen in darktable 4.2.1 (Debian 12). Needs darktable and Xvfb: apt-get install darktable xvfb.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
mkdir -p "$folder/config" "$folder/roll"
python3 - "$folder/roll/a.ppm" <<'PY'
import sys
open(sys.argv[1], "wb").write(b"P6 64 64 255\n" + bytes(range(256)) * 48)
PY
cat > "$folder/config/luarc" <<LUA
local dt = require "darktable"
dt.control.dispatch(function()
  dt.control.sleep(5000)
  dt.database.import("$folder/roll")
  dt.control.sleep(2000)
  local log = io.open("$folder/said", "w")
  local format = dt.new_format("tiff")
  log:write("written: ", tostring(format:write_image(dt.database[1], "$folder/a.tif", false)), "\n")
  log:write("no such folder: ", tostring(format:write_image(dt.database[1], "$folder/none/a.tif", false)), "\n")
  log:write("exit 3: ", dt.control.execute("exit 3"), "\n")
  local slider = dt.new_widget("slider") { hard_min = 0, hard_max = 1, soft_min = 0, soft_max = 1, digits = 2, step = 0.05, value = 1 }
  log:write("slider made with value 1: ", slider.value, "\n")
  log:close()
end)
LUA
Xvfb :97 -screen 0 1200x800x24 > /dev/null 2>&1 &
server=$!
trap 'kill $server; rm -rf "$folder"' EXIT
for run in 1 2 3; do
  rm -f "$folder/said" "$folder"/config/*.lock
  DISPLAY=:97 HOME="$folder" darktable --configdir "$folder/config" --cachedir "$folder/cache" \
    --library :memory: --conf opencl=FALSE > "$folder/log" 2>&1 &
  host=$!
  for second in $(seq 90); do
    grep -qs "^slider" "$folder/said" && break
    sleep 1
  done
  kill -9 $host
  wait $host 2> /dev/null || true
  cat "$folder/said"
done
grep -q "^written: false" "$folder/said"
