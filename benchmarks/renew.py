"""Puts trained experts into the zoo and names them in its all-in-one file, whose router stays.

    python benchmarks/renew.py runs/all-in-one/noise.safetensors ...
    python benchmarks/renew.py --describe

With `--describe` nothing is put there: every expert of the all-in-one file gets the description
that its recipe has for its class now, and its tensors stay as they are.

Evidence and thresholds were fitted to the experts that were there before: fit them anew, or check
the routes (`urushi evaluate --router all-in-one ...`).
"""

import argparse
import shutil
from pathlib import Path
from typing import Any

from urushi.files.adapter import read_adapter, storage_of, write_adapter
from urushi.files.all_in_one_file import member_of, read_all_in_one
from urushi.files.router_file import (
    name_router_graph,
    read_router,
    read_router_header,
    write_router,
)
from urushi.inference.zoo import ZOO
from urushi.training.all_in_one.all_in_one_recipe import load_all_in_one_recipe


def main() -> None:
    parser = argparse.ArgumentParser(description="Experts for the zoo.")
    parser.add_argument("files", nargs="*", type=Path, help="NAME.safetensors of an expert")
    parser.add_argument("--describe", action="store_true", help="write descriptions alone")
    given = parser.parse_args()
    if given.describe == bool(given.files):
        parser.error("give files, or --describe")
    if given.describe:
        describe()
        return
    path = ZOO / "all-in-one.safetensors"
    router = read_router(path)
    experts = dict(router.header.experts)
    scores: dict[str, Any] = dict(router.header.scores)
    for file in given.files:
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


def describe() -> None:
    """Writes into the experts what the recipe says that they are for."""
    recipe = load_all_in_one_recipe("all-in-one-cpu")
    for name in read_router_header(ZOO / "all-in-one.safetensors").experts:
        adapter, said = read_adapter(ZOO / f"{name}.safetensors"), recipe.classes[name].description
        if adapter.header.description == said:
            continue
        changes: dict[str, Any] = {"description": said}
        if adapter.header.recipe is not None:
            changes["recipe"] = {**adapter.header.recipe, "description": said}
        header = adapter.header.model_copy(update=changes)
        write_adapter(adapter.path, adapter.tensors, header, storage_of(adapter))
        assert read_adapter(adapter.path).header.tensors_hash == header.tensors_hash
        print(f"{name}: {said}")


if __name__ == "__main__":
    main()
