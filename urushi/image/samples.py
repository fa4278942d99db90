"""What the numbers of a file mean where the file does not say so itself."""

import math
from typing import NamedTuple

from urushi.errors import UnreadableError

__all__ = ["AS_FOUND", "Samples"]


class Samples(NamedTuple):
    """What a user says about the samples of pictures of 16 bits and of floating point.

    Attributes:
        white: the value that means white, such as 4095 or 255.0; None leaves it to the file.
        linear: whether they are linear light instead of encoded as sRGB is, where there is no
            profile; None leaves it to the file.
        in_use: whether a picture of 16 bits whose samples end where 12 do may be looked at and
            mended in the range that it uses; what is written has the file's own brightness.
    """

    white: float | int | None = None
    linear: bool | None = None
    in_use: bool = False

    def checked(self) -> "Samples":
        """Itself.

        Raises:
            UnreadableError: no picture has such a white.
        """
        if self.white is not None and not (math.isfinite(self.white) and self.white > 0):
            raise UnreadableError(
                f"The white {self.white:g} is not a sample value: give a number greater than 0.",
                usage=True,
            )
        return self


AS_FOUND = Samples()
"""All that is known is what the file says."""
