"""Mend many pictures with one restorer, and ask it what it sees.

python examples/restore_many.py [FOLDER]
"""

import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import urushi

INPUTS = Path(__file__).resolve().parents[1] / "demo" / "pictures" / "input"


def main(folder: Path) -> None:
    paths = sorted(folder.iterdir())[:3]

    # Made ready once: the router and the networks it needs.
    restorer = urushi.AutoRestorer()
    for path in paths:
        picture = urushi.read_picture(path)
        choice = restorer.choose(picture)  # a look alone: nothing is restored yet
        print(f"{path.name}: {choice.reason}")
        mended = restorer.restore(picture)
        urushi.write_picture(f"{path.stem}-mended.png", mended, overwrite=True)

    # Threads may share a restorer: it serves them one after the other.
    with ThreadPoolExecutor(2) as pool:
        mended = list(pool.map(restorer.restore, map(urushi.read_picture, paths)))
    print(f"{len(mended)} pictures mended by two threads")

    # One network without a router, and adapters that are mixed by hand.
    by_hand = urushi.Restorer("base", adapters=[("haze", 0.7), ("noise", 0.3)])
    by_hand.restore(urushi.read_picture(paths[0]))
    print(f"by hand, on {by_hand.describe()['engine']}")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else INPUTS)
