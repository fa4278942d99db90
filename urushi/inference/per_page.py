"""What restores each page of one file: chosen anew where something chooses."""

from pathlib import Path

from urushi.image import Samples
from urushi.image.page_choice import Pages, is_stack
from urushi.inference.auto import AutoRestorer, Choice
from urushi.inference.restorer import Restorer

__all__ = ["PerPage"]


class PerPage:
    """What restores each page of a file: chosen anew where something chooses.

    Args:
        restorer: of the batch.
        source: the file.
        max_pixels: the limit for each page.
        pages: which of them are taken.
        samples: what is known about its samples.
    """

    def __init__(
        self,
        restorer: Restorer | AutoRestorer,
        source: Path,
        max_pixels: int | None,
        pages: Pages | None,
        samples: Samples,
    ) -> None:
        self._restorer, self._source = restorer, source
        self._limit, self._samples = max_pixels, samples
        self._page = pages.first if pages is not None and pages.first else None
        self._choice: Choice | None = None
        self._stacked = is_stack(source)
        self.notes: list[str] = []

    def first(self) -> tuple[Restorer, Choice | None]:
        """For the first page that is taken."""
        if not isinstance(self._restorer, AutoRestorer):
            return self._restorer, None
        self._choice = self._choose(self._restorer, self._page)
        return self._restorer.restorer(self._choice), self._choice

    def later(self, page: int) -> Restorer:
        """For another one, counted from 0; a note tells where it needs something else."""
        if not isinstance(self._restorer, AutoRestorer):
            return self._restorer
        if self._choice is not None and self._stacked:
            # Planes of one thing are not to differ in how they were mended.
            return self._restorer.restorer(self._choice)
        choice = self._choose(self._restorer, page)
        before = self._choice
        if before is not None and [n for n, _ in choice.route] != [n for n, _ in before.route]:
            self.notes.append(f"Page {page + 1}, unlike the first: {choice.reason}.")
        return self._restorer.restorer(choice)

    def _choose(self, restorer: AutoRestorer, page: int | None) -> Choice:
        return restorer.choose_file(
            self._source, max_pixels=self._limit, page=page, samples=self._samples
        )
