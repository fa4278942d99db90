"""The folder NAME.run beside an adapter, from which an interrupted adaptation goes on.

It is taken only where it is new, empty or of an adaptation, and only what an adaptation puts there
is removed again.
"""

import contextlib
import json
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from filelock import FileLock, Timeout

from urushi.errors import FileFormatError, TakenError, TargetError
from urushi.training.checkpoint import Checkpoint, newest_checkpoint

__all__ = ["BEST_NAME", "RunFolder"]

BEST_NAME = "best.json"
_MARK, _LOCK = "adaptation.json", "adaptation.lock"
_FOLDERS = ("checkpoints", "aligned", "tensorboard")
_FILES = ("pairs.safetensors", "pictures.safetensors", "recipe.yaml", BEST_NAME, _MARK, _LOCK)


@dataclass
class RunFolder:
    """What an adaptation keeps on its way.

    Args:
        path: the folder.
        target: the adapter file that it belongs to, for messages.
    """

    path: Path
    target: Path
    checkpoint: Checkpoint | None = field(default=None, init=False)
    _lock: FileLock | None = field(default=None, init=False)

    def take(self, *, resume: bool, overwrite: bool) -> bool:
        """Makes the folder this process's own.

        Args:
            resume: go on with what was interrupted, where something was.
            overwrite: begin anew, whatever was interrupted.

        Returns:
            Whether there is an adaptation to go on with.

        Raises:
            TakenError: something else is there; or an interrupted adaptation, and neither was
                asked for; or another process works in it.
            FileFormatError: it cannot be made, or its checkpoints are damaged.
        """
        self._check_ours()
        if self.path.is_dir():
            self.checkpoint = newest_checkpoint(self.path / "checkpoints")
        if self.checkpoint is not None and not (resume or overwrite):
            raise TakenError(
                f"'{self.path}' holds an adaptation interrupted at step {self.checkpoint.step}: "
                "continue it with --resume, start over with --overwrite, or choose another name."
            )
        self._make()
        if not resume:
            self.checkpoint = None
            self._clear(keep=(_MARK, _LOCK))
        return self.checkpoint is not None

    @contextlib.contextmanager
    def filled(self, *, resume: bool, overwrite: bool) -> Iterator[bool]:
        """Takes the folder, and removes it again if filling it fails and nothing was there before.

        Args, yields and raises: as `take`.
        """
        going_on = self.take(resume=resume, overwrite=overwrite)
        try:
            yield going_on
        except Exception:
            if not going_on:
                self.remove()
            raise

    def remove(self) -> None:
        """Removes what an adaptation puts here, and the folder if nothing else is left in it."""
        self.release()
        self._clear()
        with contextlib.suppress(OSError):
            self.path.rmdir()

    def release(self) -> None:
        """Lets other processes take the folder."""
        if self._lock is not None:
            self._lock.release()
            self._lock = None

    def _check_ours(self) -> None:
        if not os.path.lexists(self.path):
            return
        real = self.path.is_dir() and not self.path.is_symlink()
        if real and (not any(self.path.iterdir()) or (self.path / _MARK).is_file()):
            return
        if real and self._of_former_version():
            return
        raise TakenError(
            f"'{self.path}' does not belong to an adaptation and was not touched: move it, or "
            f"choose another name than {self.target.name}, whose checkpoints would go there."
        )

    def _of_former_version(self) -> bool:
        """Without a mark, but with checkpoints."""
        try:
            return newest_checkpoint(self.path / "checkpoints") is not None
        except FileFormatError:
            return False

    def _make(self) -> None:
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            lock = FileLock(self.path / _LOCK, blocking=False)
            lock.acquire()
            self._lock = lock
            (self.path / _MARK).write_text(json.dumps({"target": self.target.name}) + "\n")
        except Timeout:
            raise TakenError(
                f"'{self.path}' is in use by another process, which adapts into "
                f"{self.target.name}: wait for it, or choose another name."
            ) from None
        except OSError as error:
            raise TargetError(
                f"'{self.path}' cannot be created ({error.strerror or error}): choose a folder "
                "that "
                "exists and may be written."
            ) from error

    def _clear(self, keep: tuple[str, ...] = ()) -> None:
        for name in _FOLDERS:
            place = self.path / name
            if not place.is_symlink():
                shutil.rmtree(place, ignore_errors=True)
        for name in _FILES:
            if name not in keep:
                with contextlib.suppress(OSError):
                    (self.path / name).unlink(missing_ok=True)
