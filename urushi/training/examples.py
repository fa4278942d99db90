"""What a user adapts with: pairs of pictures, or clean pictures and a degradation.

Looked through before anything is trained: what does not match, has other sizes, or does not lie on
its partner is found here, and part of it is set aside for validation.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8

from urushi.data.align import Shift, aligned, estimate_shift
from urushi.data.pack import pack_pairs, pack_pictures, read_8bit
from urushi.data.packed import PackedPairs, PackedPictures
from urushi.data.pairs import Pair, PairedFolder, find_left_out, find_pictures, whole_factor
from urushi.degradations import degradation_of
from urushi.errors import DataError, PictureError
from urushi.evaluation.catalog import Benchmark, clean_benchmark, paired_benchmark
from urushi.names import counted, plain_name

__all__ = ["Examples", "clean_examples", "pair_examples", "set_aside"]

LEAST_PAIRS = 2
_VALIDATION_SHARE = 0.15
_MOST_VALIDATION = 8
# A pixel is within what hand-made pairs are off by, and costs little.
_WORTH_TELLING = 2
_SUFFIX = {True: "s", False: ""}

Tell = Callable[[int, int, str], None]


@dataclass(frozen=True)
class Examples:
    """Pictures to learn from and others to measure by.

    Attributes:
        pack: what is trained on.
        validation: what is measured; no picture of it is in `pack`.
        degradation: of clean pictures; None where there are pairs.
        notes: what the user should know, a sentence each.
        scale: sides of the targets divided by those of the inputs.
    """

    pack: PackedPictures
    validation: Benchmark
    degradation: dict[str, Any] | None
    notes: tuple[str, ...]
    scale: int = 1


def set_aside(names: Sequence[str]) -> tuple[list[str], list[str]]:
    """Names for training and for validation: every seventh, but at least one and at most eight.

    Those set aside are spread evenly over the sorted names, since neighbours are often alike.
    """
    ordered = sorted(names)
    count = max(1, min(_MOST_VALIDATION, round(_VALIDATION_SHARE * len(ordered))))
    chosen = {ordered[int((i + 0.5) * len(ordered) / count)] for i in range(count)}
    return [name for name in ordered if name not in chosen], sorted(chosen)


def pair_examples(
    folder: Path | PairedFolder, run: Path, *, align: bool = False, on_progress: Tell | None = None
) -> Examples:
    """Looks through the pairs of a folder, and packs them into `run`.

    Args:
        folder: holds a folder of inputs and one of targets; or the pairs of two folders.
        run: where packs and aligned pictures go.
        align: cut pairs that are shifted against each other to what both show.
        on_progress: called after every pair with (done, total, name).

    Raises:
        DataError: there are no pairs or too few, or their sizes differ.
    """
    found = folder if isinstance(folder, PairedFolder) else PairedFolder(folder)
    left_out = _left_out(found.input_folder, found.target_folder)
    notes = [*found.problems[:3], *left_out]
    if len(found.problems) > 3:
        notes.append(
            f"{counted(len(found.problems) - 3, 'more picture has', 'more pictures have')} no "
            "partner"
        )
    if len(found) < LEAST_PAIRS:
        raise DataError(
            f"{_place_of(found)} {len(found)} pair{_SUFFIX[len(found) != 1]}: at least "
            f"{LEAST_PAIRS} are needed, one to learn from and one to measure by, and 16 are a good "
            "start" + "".join(f". {note}" for note in left_out)
        )
    pairs, shifted = _looked_at(list(found), run / "aligned" if align else None, on_progress)
    if shifted:
        names = ", ".join(f"{name} ({down} down, {right} right)" for name, down, right in shifted)
        done = "cut to what both show" if align else "put them right with --align"
        plural = len(shifted) > 1
        notes.append(
            f"{len(shifted)} target{_SUFFIX[plural]} {'are' if plural else 'is'} shifted against "
            f"the input{_SUFFIX[plural]} by some pixels: {names[:200]}; {done}"
        )
    train, held = set_aside([pair.name for pair in pairs])
    rows = [(p.name, p.input, p.target) for p in pairs if p.name in set(train)]
    summary = pack_pairs(rows, run / "pairs.safetensors", overwrite=True)
    root = run / "aligned" if align else None
    benchmark = paired_benchmark(
        root / "input" if root else found.input_folder,
        root / "target" if root else found.target_folder,
        only=held,
    )
    pack = PackedPairs(summary.path)
    return Examples(pack, benchmark, None, tuple(notes), pack.scale)


def _place_of(found: PairedFolder) -> str:
    if found.input_folder == found.target_folder:
        return f"{found.input_folder} holds"
    if found.input_folder.parent == found.target_folder.parent:
        return f"{found.input_folder.parent} holds"
    return f"{found.input_folder} and {found.target_folder} hold"


def _left_out(*folders: Path) -> list[str]:
    """A sentence on pictures of formats that are not read, if there are any."""
    from urushi.image import left_out_sentence

    found = dict.fromkeys(path for folder in folders for path in find_left_out(folder))
    sentence = left_out_sentence(found)
    return [sentence] if sentence else []


def _looked_at(
    pairs: list[Pair], target: Path | None, tell: Tell | None
) -> tuple[list[Pair], list[tuple[str, int, int]]]:
    """The pairs, copied into `target` aligned where that is given; and those that are shifted."""
    kept, shifted = [], []
    scale = 0
    for done, pair in enumerate(pairs, start=1):
        try:
            degraded, clean = read_8bit(pair.input), read_8bit(pair.target)
        except PictureError as error:
            raise DataError(f"the pair {pair.name} cannot be read: {error}") from error
        (h, w), (th, tw) = degraded.shape[:2], clean.shape[:2]
        own = whole_factor((h, w), (th, tw))
        if own is None:
            raise DataError(
                f"the input of {pair.name} is {w}x{h} pixels and its target {tw}x{th}: both must "
                "have the same size, or the target a whole multiple of it; find all such pairs "
                "with  urushi data check"
            )
        scale = scale or own
        if own != scale:
            raise DataError(
                f"the target of {pair.name} is {own} times as large as its input, that of "
                f"{pairs[0].name} {scale} times: put pairs of each scale into a folder of their own"
            )
        shift = estimate_shift(degraded, _blocks(clean, scale).mean(2).astype(np.uint8))
        if shift.clear and shift.size >= (1 if target else _WORTH_TELLING):
            shifted.append((pair.name, shift.down, shift.right))
            if target is not None:
                degraded, clean = _aligned(degraded, clean, shift, scale)
        kept.append(pair if target is None else _copied(pair, target, degraded, clean))
        if tell is not None:
            tell(done, len(pairs), pair.name)
    return kept, shifted


def _blocks(clean: UInt8[np.ndarray, "h2 w2 3"], scale: int) -> UInt8[np.ndarray, "h w pixels 3"]:
    """A target with the pixels that belong to one of the input's beside one another."""
    height, width = clean.shape[0] // scale, clean.shape[1] // scale
    blocks = clean.reshape(height, scale, width, scale, 3).swapaxes(1, 2)
    return blocks.reshape(height, width, scale**2, 3)


def _aligned(
    degraded: UInt8[np.ndarray, "h w 3"],
    clean: UInt8[np.ndarray, "h2 w2 3"],
    shift: Shift,
    scale: int,
) -> tuple[UInt8[np.ndarray, "h3 w3 3"], UInt8[np.ndarray, "h4 w4 3"]]:
    """As `aligned`, for a target that is larger; the shift is in pixels of the input."""
    # Places cut in their stead tell what is left of either.
    grid = np.indices(degraded.shape[:2]).transpose(1, 2, 0)
    mine, theirs = aligned(grid, grid, shift)
    (top, left), (bottom, right) = mine[0, 0], mine[-1, -1] + 1
    cut = degraded[top:bottom, left:right]
    (top, left), (bottom, right) = scale * theirs[0, 0], scale * (theirs[-1, -1] + 1)
    return cut, clean[top:bottom, left:right]


def _copied(pair: Pair, target: Path, degraded: Any, clean: Any) -> Pair:
    from urushi.image import write_picture

    paths = []
    for side, pixels in (("input", degraded), ("target", clean)):
        path = target / side / f"{pair.name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        write_picture(path, pixels.astype("float32") / 255, overwrite=True)
        paths.append(path)
    return Pair(pair.name, *paths)


def clean_examples(
    folder: Path,
    degradation: Mapping[str, Any],
    run: Path,
    *,
    patch: int,
    seed: int = 0,
    on_progress: Tell | None = None,
) -> Examples:
    """Packs clean pictures, which are degraded while training, into `run`.

    Args:
        folder: clean pictures, at any depth.
        degradation: `{"name": ..., ...}`.
        run: where the pack goes.
        patch: pictures smaller than this many pixels are left out, as many times more as the
            degradation makes pictures smaller.
        seed: of the degradation of those that are measured.
        on_progress: called after every picture with (done, total, name).

    Raises:
        DataError: there are too few pictures.
        DegradationError: the degradation does not exist or does not take these values.
    """
    paths = {plain_name(p.relative_to(folder).with_suffix("")): p for p in find_pictures(folder)}
    if len(paths) < LEAST_PAIRS:
        raise DataError(
            f"{folder} holds {len(paths)} picture{_SUFFIX[len(paths) != 1]}: at least "
            f"{LEAST_PAIRS} are needed, one to learn from and one to measure by"
            + "".join(f". {note}" for note in _left_out(folder))
        )
    train, held = set_aside(list(paths))
    scale = degradation_of(degradation).scale
    benchmark = clean_benchmark(folder, degradation, seed=seed, only=held)
    summary = pack_pictures(
        [paths[name] for name in train],
        run / "pictures.safetensors",
        min_side=patch * scale,
        overwrite=True,
        on_progress=on_progress,
    )
    notes = [f"left out: {reason}" for _, reason in summary.skipped[:3]]
    notes += _left_out(folder)
    pack = PackedPictures(summary.path)
    return Examples(pack, benchmark, dict(degradation), tuple(notes), scale)
