"""The service under load: many clients, bad files among theirs, and a worker that is killed.

    python benchmarks/serve.py [--clients 64] [--minutes 10] [--kills 10]

Pieces of many sizes are cut out of pictures, and files that are no whole pictures are put among
them. `urushi restore` restores the folder: what it writes, and says of the bad ones, is what the
service has to answer, byte for byte and word for word. It is timed before and after the load, less
the time that it takes for a folder of one small picture, so that the start of the engine is not in
its pictures per minute.

Each client sends one file after the other, on a connection of its own, some with a wish for a job;
it waits as long as Retry-After says. Files are handed out in passes over the whole folder, so that
the service and the command have the same mixture. Meanwhile the worker that restores is killed; a
picture that was lost so is answered with a status, and is sent again. All runs on one machine, and
the clients share its processor with the service.
"""

import argparse
import sys
import tempfile
import time
from pathlib import Path

from measuring import run_script, write_report
from serve_clients import Load
from serve_service import Watched, command
from serve_sources import make_folder

PICTURES = Path(__file__).parents[1] / "demo/pictures/reference"


def main() -> None:
    """Reads the command line and writes the row."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--clients", type=int, default=64)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--kills", type=int, default=10, help="of the worker that restores")
    parser.add_argument("--queue", type=int, default=32, help="of the service; fewer than clients")
    parser.add_argument("--pictures", type=int, default=240)
    parser.add_argument("--bad", type=int, default=16)
    parser.add_argument("--data", type=Path, default=PICTURES, help="of which pieces are cut")
    parser.add_argument("--name", default="serve", help="of the report")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        row = measure(options, Path(folder))
    packages = ("openvino", "pyvips", "fastapi", "uvicorn")
    write_report(options.name, {"what": "the service on loopback under load"}, packages, [row])
    for name, value in row.items():
        print(f"{name}: {value}")


def measure(options: argparse.Namespace, folder: Path) -> dict:
    """The row."""
    source = folder / "in"
    shapes = make_folder(options.data, source, options.pictures, options.bad)
    one = folder / "one"
    one.mkdir()
    smallest = min(shapes, key=lambda name: shapes[name][0] * shapes[name][1])
    (one / smallest).write_bytes((source / smallest).read_bytes())

    say(f"{len(shapes)} pictures are made")
    command(one, folder / "warm")
    start = command(one, folder / "start").seconds
    expected = command(source, folder / "before")
    say(f"the command took {expected.seconds:.1f} s, {start:.1f} s of them to start")
    with Watched(folder, options.queue) as service:
        load = Load(service.address, source, expected, options.clients)
        say("the service is ready")
        load.run(service, options.minutes, options.kills)
        say(f"the load is over: {load.report()}")
    say("the service is stopped")
    again = command(source, folder / "after")
    # What the command gives otherwise the second time cannot be asked of the service.
    before, after = ({**made.files, **made.sentences} for made in (expected, again))
    unsteady = sorted(name for name in before if before[name] != after.get(name))

    pixels = sum(height * width for height, width in shapes.values())
    rates = [60 * len(shapes) / (seconds - start) for seconds in (expected.seconds, again.seconds)]
    mean = sum(rates) / 2
    told = load.report()
    down = sum(service.without_worker)
    served = told["restored_in_time"] / options.minutes
    working = told["restored_in_time"] / (options.minutes - down / 60)
    return {
        "minutes": options.minutes,
        "clients": options.clients,
        "queue": options.queue,
        "folder_pictures": len(shapes),
        "folder_bad": options.bad,
        "folder_megapixels": round(pixels / 1e6, 2),
        "largest": max(shapes.values(), key=lambda shape: shape[0] * shape[1]),
        **told,
        "command_differs_from_itself": unsteady,
        "kills": service.kills,
        "deaths_logged": service.deaths(),
        "seconds_without_worker": [round(seconds, 1) for seconds in service.without_worker],
        "command_seconds": [round(expected.seconds, 1), round(again.seconds, 1)],
        "command_start_seconds": round(start, 1),
        "command_pictures_per_minute": [round(rate, 1) for rate in rates],
        "pictures_per_minute": round(served, 1),
        "pictures_per_minute_while_worker_up": round(working, 1),
        "ratio_to_command": round(served / mean, 3),
        "ratio_to_command_while_worker_up": round(working / mean, 3),
        "memory_mb": service.memory(),
        "stopped_with": service.code,
    }


def say(text: str) -> None:
    """Tells how far it is."""
    print(time.strftime("%H:%M:%S"), text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    run_script(main)
