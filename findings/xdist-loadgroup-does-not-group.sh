#!/usr/bin/env bash
# With pytest 9.2, `--dist loadgroup` of pytest-xdist 3.8 spreads the tests of one `xdist_group`
# over all processes, without a word: it writes the group into `item._nodeid`, and `item.nodeid`,
# which it sends, does not follow. With pytest 9.0 the four tests run in one process.
# Guess beforehand: one process with both.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cat >"$folder/test_group.py" <<'PY'
import os
import time

import pytest


@pytest.mark.xdist_group("one")
@pytest.mark.parametrize("number", range(4))
def test_it(number):
    time.sleep(0.3)
    with open("processes.txt", "a") as file:
        print(os.environ["PYTEST_XDIST_WORKER"], file=file)
PY
for version in 9.0.3 9.2.0; do
    python3 -m venv --clear "$folder/venv"
    "$folder/venv/bin/pip" -q install "pytest==$version" pytest-xdist==3.8.0
    cd "$folder"
    rm -f processes.txt
    "$folder/venv/bin/python" -m pytest -q -n 2 --dist loadgroup test_group.py
    echo "pytest $version: the group ran in $(sort -u processes.txt | wc -l) process(es)"
done
[ "$(sort -u processes.txt | wc -l)" = 2 ]
