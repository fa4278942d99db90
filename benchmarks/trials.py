"""The runner of grids of trials: groups of variants of a recipe, a row of figures each.

`NAME.yaml` beside a script names groups; a group has `variants`, each a list of changes, and `all`
that all of them share. A trial runs in a process of its own, so that compiled programs and kept
memory of one do not meet those of the next. A finished row is kept in `results/NAME.json` and not
measured again. (Adapters are compared by `urushi compare`; here it is what recipes say.)
"""

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import yaml

__all__ = ["Trials", "flat", "table"]

Row = dict[str, Any]


class Trials:
    """A grid of trials, and the command line of its script.

    Args:
        script: its path; the grid is beside it, in `NAME.yaml`.
        first: trials of every group before its variants.
    """

    def __init__(self, script: str, description: str, first: Sequence[str] = ()) -> None:
        self._script, self._first = Path(script), first
        self._results = self._script.parent / "results" / f"{self._script.stem}.json"
        self.parser = argparse.ArgumentParser(description=description)
        self.parser.add_argument("--data", required=True, type=Path, help="of the data sets")
        self.parser.add_argument("--only", nargs="*", help="groups to run; all by default")
        runs = Path("runs") / self._script.stem.replace("_", "-")
        self.parser.add_argument("--runs", type=Path, default=runs)
        self.parser.add_argument("--threads", type=int, default=1)
        self.parser.add_argument("--variant", help=argparse.SUPPRESS)

    def plans(self) -> dict[str, Any]:
        """The groups; names that begin with a dot are parts of others."""
        groups = yaml.safe_load(self._script.with_suffix(".yaml").read_text(encoding="utf-8"))
        return {name: plan for name, plan in groups.items() if not name.startswith(".")}

    def rows(self) -> list[Row]:
        """What was measured so far."""
        found = self._results
        return json.loads(found.read_text(encoding="utf-8")) if found.exists() else []

    def run(
        self,
        measure: Callable[[dict[str, Any], str, str, argparse.Namespace], Any],
        *,
        needs: Sequence[str] = ("data",),
        keep: Callable[[argparse.Namespace], bool] = lambda _: True,
    ) -> list[Row]:
        """Runs what is asked for.

        Args:
            measure: makes the row of a trial: of a group's plan, its name, the variant's and the
                options.
            needs: options that name what must be there.
            keep: whether what is measured are rows to be kept; else it is printed.

        Returns:
            All rows.
        """
        options = self.parser.parse_args()
        plans = self.plans()
        if options.variant:
            group, name = options.variant.split("/", 1)
            print(json.dumps(measure(plans[group], group, name, options)))
            raise SystemExit
        if unknown := set(options.only or []) - set(plans):
            self.parser.error(f"--only is {min(unknown)!r}: expected some of {', '.join(plans)}")
        for option in needs:
            place = getattr(options, option)
            if not place.exists():
                self.parser.error(f"--{option} {place} does not exist: name what is there")
        for group in options.only or plans:
            for name in [*self._first, *plans[group]["variants"]]:
                known = any((r["group"], r["variant"]) == (group, name) for r in self.rows())
                if known and keep(options):
                    continue
                print(f"{group}/{name}", file=sys.stderr, flush=True)
                row = self._trial(group, name, options.threads)
                if not keep(options):
                    print(f"{group}/{name}: {row}", flush=True)
                    continue
                # Read again: another process may have added rows of another group meanwhile.
                text = json.dumps([*self.rows(), row], indent=1)
                self._results.write_text(text + "\n", encoding="utf-8")
        return self.rows()

    def _trial(self, group: str, name: str, threads: int) -> Any:
        words = [sys.executable, str(self._script), *sys.argv[1:], "--variant", f"{group}/{name}"]
        own = {**os.environ, "OMP_NUM_THREADS": str(threads)}
        done = subprocess.run(words, stdout=subprocess.PIPE, text=True, env=own)
        if done.returncode:
            raise SystemExit(done.returncode)
        return json.loads(done.stdout.splitlines()[-1])


def flat(changes: Any) -> list[str]:
    """A list of changes that may hold lists, which YAML's anchors make."""
    return [c for part in changes or [] for c in ([part] if isinstance(part, str) else part)]


def table(rows: Sequence[Row]) -> str:
    """The rows in Markdown, a table for each group."""
    lines: list[str] = []
    for group in dict.fromkeys(row["group"] for row in rows):
        own = [row for row in rows if row["group"] == group]
        names = list(dict.fromkeys(name for row in own for name in row["psnr"]))
        titles = [group, "parameters", "steps", *names]
        lines += ["", f"| {' | '.join(titles)} |", "|---" * len(titles) + "|"]
        for row in own:
            # What came later is missing in older rows.
            psnr = [f"{row['psnr'][name]:.2f}" if name in row["psnr"] else "" for name in names]
            cells = [row["variant"], f"{row.get('parameters', 0):,}", str(row.get("steps", 0))]
            lines.append(f"| {' | '.join([*cells, *psnr])} |")
    return "\n".join(lines)
