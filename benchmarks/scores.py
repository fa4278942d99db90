"""The table of scores in the card of the base, from the rows that `urushi evaluate` left.

urushi evaluate --all --data DATA --json benchmarks/results/scores-base.json
python benchmarks/scores.py benchmarks/results/scores-base.json
"""

import sys
from pathlib import Path

from urushi.evaluation.score_report import read_report


def main(path: Path) -> None:
    lines = [
        "| benchmark | pictures | protocol | input | restored | gain | SSIM in | out | worse "
        "| a specialist |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for result in read_report(path).results:
        means = result.means
        assert means.psnr is not None, result.benchmark
        others = ", ".join(f"{o.method} {o.psnr:.2f}" for o in result.published)
        same = means.psnr_input >= 100
        gain = "" if same else f"{means.psnr - means.psnr_input:+.2f}"
        lines.append(
            f"| {result.benchmark} | {len(result.pictures)} | {result.protocol} "
            f"| {'itself' if same else f'{means.psnr_input:.2f}'} | {means.psnr:.2f} | {gain} "
            f"| {means.ssim_input:.4f} | {means.ssim:.4f} | {result.worse} | {others} |"
        )
    print("\n".join(lines))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
