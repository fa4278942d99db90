"""Puts trained experts into the zoo and names them in its all-in-one file, whose router stays.

    python benchmarks/renew.py runs/all-in-one/noise.safetensors ...

Evidence and thresholds were fitted to the experts that were there before: fit them anew, or check
the routes (`urushi evaluate --router all-in-one ...`).
"""

import argparse
import shutil
from pathlib import Path
from typing import Any

from urushi.files.adapter import read_adapter
from urushi.files.all_in_one_file import member_of, read_all_in_one
from urushi.files.router_file import name_router_graph, read_router, write_router
from urushi.inference.zoo import ZOO


def main() -> None:
    parser = argparse.ArgumentParser(description="Experts for the zoo.")
    parser.add_argument("files", nargs="+", type=Path, help="NAME.safetensors of an expert")
    path = ZOO / "all-in-one.safetensors"
    router = read_router(path)
    experts = dict(router.header.experts)
    scores: dict[str, Any] = dict(router.header.scores)
    for file in parser.parse_args().files:
        if file.stem not in experts:
            parser.error(f"{file}: {path.name} has the experts {', '.join(experts)}")
        adapter = read_adapter(file)
        shutil.copyfile(file, ZOO / file.name)
        experts[file.stem] = member_of(read_adapter(ZOO / file.name))
        if adapter.header.scores:
            scores["experts"] = {**scores.get("experts", {}), file.stem: adapter.header.scores}
        print(f"{file.stem}: {experts[file.stem].tensors_hash[:12]}")
    header = router.header.model_copy(update={"experts": experts, "scores": scores})
    write_router(path, router.tensors, header, router.storage)
    if router.graph is not None:
        name_router_graph(path)
    read_all_in_one(path)


if __name__ == "__main__":
    main()
