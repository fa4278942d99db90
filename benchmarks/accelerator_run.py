"""Trains by the clock on a machine that has torch, numpy and Pillow and can fetch nothing.

    python benchmarks/accelerator_run.py FOLDER OUT --minutes 9 [--steps N] [--device cpu]

FOLDER is what `accelerator.py pack` wrote. The pictures lie decoded in the accelerator's memory and
are degraded there; bf16, channels-last, compiled; the batch is what fits, up to `--batch`. The
learning rate rises over the first steps, and falls along half a cosine to the end of the time. The
averaged weights, in float16, are written every two minutes and at the end: `weights-N.npz`, each
smaller than 16 MB, and `facts.json`.
"""

import argparse
import io
import json
import math
import queue
import sys
import threading
import time
import zipfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, BinaryIO

HERE = Path(__file__).parent
WARMUP = 200
PART_BYTES = 15_000_000
WRITE_SECONDS = 120.0


def main() -> None:
    parser = argparse.ArgumentParser(description="Trains by the clock, from packed files.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("output", type=Path)
    parser.add_argument("--minutes", type=float, default=9.0, help="everything included")
    parser.add_argument("--steps", type=int, help="end after so many")
    parser.add_argument("--batch", type=int, default=256, help="patches of a step at most")
    parser.add_argument("--patch", type=int, default=128)
    parser.add_argument("--rate", type=float, help="learning rate; the recipe's otherwise")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--no-compile", action="store_true")
    arguments = parser.parse_args()
    begun = time.monotonic()
    sys.path[:0] = [str(HERE.parent), str(arguments.folder / "site")]
    if not (arguments.folder / "recipe.json").is_file():
        parser.error(f"{arguments.folder} holds no recipe.json: accelerator.py pack writes it")
    import torch

    if arguments.device.startswith("cuda") and not torch.cuda.is_available():
        parser.error("torch finds no CUDA device here: --device cpu tries the training out")
    arguments.output.mkdir(parents=True, exist_ok=True)
    Training(arguments, begun + 60 * arguments.minutes).run()


class Training:
    """One training; see the top of this file."""

    def __init__(self, arguments: argparse.Namespace, end: float) -> None:
        import torch

        self.begun = time.monotonic()
        self.end, self.output, self.most_steps = end, arguments.output, arguments.steps
        self.recipe = json.loads((arguments.folder / "recipe.json").read_text(encoding="utf-8"))
        self.device = torch.device(arguments.device)
        self.cuda = self.device.type == "cuda"
        torch.manual_seed(self.recipe["seed"])
        torch.backends.cudnn.benchmark = True
        torch.set_float32_matmul_precision("high")
        self.rate = arguments.rate or self.recipe["optimizer"]["learning_rate"]
        self.network = self._network(arguments.folder / "start.npz")
        self.pack = self._pack(arguments.folder / "pictures.zip")
        self.resident = self.pack.to_tensor(self.device)
        self.patch = arguments.patch
        self.batch = self._fitting(arguments.batch) if self.cuda else arguments.batch
        self._say(f"{self.batch} patches of {self.patch} pixels a step")
        self.optimizer = torch.optim.AdamW(
            self.network.parameters(),
            lr=self.rate,
            betas=tuple(self.recipe["optimizer"]["betas"]),
            weight_decay=self.recipe["optimizer"]["weight_decay"],
            fused=self.cuda,
        )
        if not arguments.no_compile:
            self.network.compile(dynamic=False)
        self.steps, self.losses, self.log = 0, [], []

    # --- what there is ---

    def _network(self, start: Path) -> Any:
        import numpy as np
        import torch

        from urushi.backbones import create_backbone

        stated = self.recipe["backbone"]
        network = create_backbone(stated["name"], stated["config"])
        if start.exists():
            with np.load(start, allow_pickle=False) as arrays:
                state = {k: torch.from_numpy(arrays[k].astype("float32")) for k in arrays.files}
            network.load_state_dict(state)
            self._say(f"begins with the weights of {start}")
        network = network.to(self.device).to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
        return network.train()

    def _pack(self, path: Path) -> Any:
        import numpy as np
        from PIL import Image

        from urushi.data.packed import PackedPictures
        from urushi.data.synthetic_pages import draw_pages

        def decoded(data: bytes) -> np.ndarray:
            with Image.open(io.BytesIO(data)) as image:
                return np.asarray(image.convert("RGB"))

        with zipfile.ZipFile(path) as archive:
            files = [archive.read(name) for name in sorted(archive.namelist())]
        with ThreadPoolExecutor() as pool:
            pictures = list(pool.map(decoded, files))
        pictures += list(draw_pages(self.recipe["data"]["pages"], 512, self.recipe["seed"]))
        pictures = [p for p in pictures if min(p.shape[:2]) >= 128]
        self._say(f"{len(pictures)} pictures, {sum(p.size for p in pictures) / 3e6:.0f} megapixels")
        return PackedPictures.of_arrays(pictures)

    def _batches(self, batch: int) -> Any:
        from urushi.degradations import create_degradation
        from urushi.training.batches import DegradedBatches

        options = dict(self.recipe["degradation"])
        degradation = create_degradation(options.pop("name"), **options)
        return DegradedBatches(
            self.pack,
            self.patch,
            batch,
            True,
            self.recipe["seed"] + 7,  # not what the run on the CPU draws
            self.device,
            self.resident,
            degradation=degradation,
        )

    def _fitting(self, most: int) -> int:
        """The largest power of two of patches that a step has memory for."""
        import torch

        few = 8
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        x = torch.rand(few, 3, self.patch, self.patch, device=self.device)
        with torch.autocast("cuda", torch.bfloat16):
            restored = self.network(x.contiguous(memory_format=torch.channels_last))
        restored.float().square().mean().backward()
        self.network.zero_grad()
        each = (torch.cuda.max_memory_allocated() - before) / few
        fits = int(0.7 * torch.cuda.mem_get_info()[0] / each)
        return min(most, 1 << (max(fits, 1).bit_length() - 1))

    # --- steps ---

    def run(self) -> None:
        import torch

        from urushi.training.checkpoint import WeightAverage
        from urushi.training.losses import make_loss

        loss_of = make_loss(**self.recipe["loss"])
        average = WeightAverage(self.network, self.recipe["ema"])
        drawn = self._drawing()
        written = reported = time.monotonic()
        first = None
        while not self._over():
            batch = drawn.get()
            if isinstance(batch, BaseException):
                raise batch
            for group in self.optimizer.param_groups:
                group["lr"] = self._learning_rate()
            with torch.autocast(self.device.type, torch.bfloat16):
                restored = self.network(batch.degraded)
            loss = loss_of(restored, batch.clean)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(
                self.network.parameters(), self.recipe["optimizer"]["clip"]
            )
            self.optimizer.step()
            self.optimizer.zero_grad()
            self.steps += 1
            average.update(self.network, self.steps)
            self.losses.append(loss.detach())
            now = time.monotonic()
            if first is None:
                # The first step compiles.
                self._wait()
                first = now = time.monotonic()
                self._say(f"first step after {now - self.begun:.0f} s")
            if now - reported >= 20:
                self._report(now - first)
                reported = now
            if now - written >= WRITE_SECONDS:
                self._write(average)
                written = now
        self._report(time.monotonic() - (first or self.begun))
        self._write(average)
        self.stop.set()
        # A thread that still works when the process ends would end it with a signal.
        self.drawer.join()

    def _drawing(self) -> "queue.Queue[Any]":
        """Batches, drawn by a thread on a stream of its own while the network trains."""
        import torch

        drawn: queue.Queue[Any] = queue.Queue(maxsize=2)
        self.stop = threading.Event()
        batches = self._batches(self.batch)

        def draw() -> None:
            stream = torch.cuda.Stream() if self.cuda else None
            step = 0
            try:
                while not self.stop.is_set():
                    with torch.cuda.stream(stream), torch.no_grad():
                        batch = batches(step)
                        degraded = batch.degraded.contiguous(memory_format=torch.channels_last)
                        batch = batch._replace(degraded=degraded)
                    if stream is not None:
                        stream.synchronize()
                    step += 1
                    self._put(drawn, batch)
            except BaseException as error:  # told by the thread that waits for batches
                self._put(drawn, error)

        self.drawer = threading.Thread(target=draw, daemon=True)
        self.drawer.start()
        return drawn

    def _put(self, drawn: "queue.Queue[Any]", item: Any) -> None:
        while not self.stop.is_set():
            try:
                drawn.put(item, timeout=1)
                return
            except queue.Full:
                continue

    def _over(self) -> bool:
        if self.most_steps is not None and self.steps >= self.most_steps:
            return True
        # What is written at the end takes a moment, too.
        return time.monotonic() >= self.end - 5

    def _learning_rate(self) -> float:
        if self.steps < WARMUP:
            return self.rate * (self.steps + 1) / WARMUP
        share = (time.monotonic() - self.begun) / max(self.end - self.begun, 1e-9)
        return self.rate * (1 + math.cos(math.pi * min(share, 1.0))) / 2

    def _wait(self) -> None:
        import torch

        if self.cuda:
            torch.cuda.synchronize()

    # --- what is left behind ---

    def _report(self, seconds: float) -> None:
        import torch

        self._wait()
        if self.steps == 0:
            self._say("the time was over before the first step")
            return
        loss = float(torch.stack(self.losses).mean()) if self.losses else math.nan
        self.losses = []
        pixels = self.steps * self.batch * self.patch**2
        speed = (pixels - self.batch * self.patch**2) / max(seconds, 1e-9)
        self.log.append({"step": self.steps, "seconds": round(seconds, 1), "loss": loss})
        self._say(f"step {self.steps}: loss {loss:.2f}, {speed / 1e6:.2f} megapixels/s")

    def _write(self, average: Any) -> None:
        import numpy as np

        state = {**self.network.state_dict(), **average.weights}
        part: dict[str, Any] = {}
        number = size = 0
        for name, tensor in state.items():
            array = tensor.detach().float().cpu().numpy().astype(np.float16)
            if size + array.nbytes > PART_BYTES:
                self._put_in_place(
                    f"weights-{number}.npz", lambda f, part=part: np.savez(f, **part)
                )
                part, size, number = {}, 0, number + 1
            part[name], size = array, size + array.nbytes
        self._put_in_place(f"weights-{number}.npz", lambda f: np.savez(f, **part))
        facts = {
            "recipe": self.recipe,
            "steps": self.steps,
            "pixels": self.steps * self.batch * self.patch**2,
            "batch": self.batch,
            "patch": self.patch,
            "device": self._device_name(),
            "log": self.log,
        }
        text = json.dumps(facts).encode()
        self._put_in_place("facts.json", lambda file: file.write(text))

    def _put_in_place(self, name: str, write: Callable[[BinaryIO], object]) -> None:
        """Writes beside the name and renames: the time may be over at any moment."""
        beside = self.output / f".{name}"
        with beside.open("wb") as file:
            write(file)
        beside.replace(self.output / name)

    def _device_name(self) -> str:
        import torch

        return torch.cuda.get_device_name() if self.cuda else "the CPU"

    def _say(self, text: str) -> None:
        print(f"[{time.monotonic() - self.begun:6.1f}] {text}", flush=True)


if __name__ == "__main__":
    main()
