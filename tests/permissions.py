"""Running a part of a test as a user whom permissions bind."""

import contextlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def as_nobody(folder: Path) -> Iterator[None]:
    """Runs as a user whom permissions bind; the superuser may read and write everything."""
    if os.geteuid() != 0:
        yield
        return
    # The folders of tests are closed to others, however deep they lie below the temporary one.
    for parent in [folder, *folder.parents]:
        if parent == Path(tempfile.gettempdir()):
            break
        if parent.stat().st_mode & 0o055 != 0o055:
            parent.chmod(parent.stat().st_mode | 0o055)
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)
