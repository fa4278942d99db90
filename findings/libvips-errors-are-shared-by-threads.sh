#!/usr/bin/env bash
# libvips has one buffer of errors for all threads of a process, and pyvips takes all that is in it for the exception it
# raises. So of two threads that fail at about the same time, one gets an exception with the other's reason (or with
# both), and the other one with none: "unable to call ...". Whoever reads many files at once and tells why one cannot be
# read tells of another one.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet "pyvips==3.2.0" "pyvips-binary==8.18.7"
cd "$folder"
venv/bin/python - <<'PY'
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import pyvips

print("pyvips", pyvips.__version__, "libvips", ".".join(str(pyvips.version(part)) for part in range(3)))




# One after the other: a thread leaves its words behind, and another thread's exception has them.
def leave() -> None:
    pyvips.vips_lib.vips_foreign_find_load(b"first.jpg")


thread = threading.Thread(target=leave)
thread.start()
thread.join()
try:
    pyvips.Image.new_from_file("second.png")
except pyvips.Error as error:
    print("the exception about second.png:", repr(str(error)))
    both = "first.jpg" in str(error)
else:
    raise SystemExit("second.png is there")


# At once: what two threads are told of their own file.
def told(name: str) -> Counter:
    counts: Counter = Counter()
    other = {"first.jpg": "second.png", "second.png": "first.jpg"}[name]
    for _ in range(5000):
        try:
            pyvips.Image.new_from_file(name)
        except pyvips.Error as error:
            text = error.detail
            counts["its own" if name in text and other not in text else "the other's" if other in text else "none"] += 1
    return counts


with ThreadPoolExecutor(2) as pool:
    for name, counts in zip(("first.jpg", "second.png"), pool.map(told, ("first.jpg", "second.png"))):
        print(name, "was given as a reason:", dict(counts))
assert both, "each thread has errors of its own now"
PY
