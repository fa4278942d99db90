"""Whether HEVC can be decoded, in which telephones write photographs (HEIC).

Builds of libvips often lack the decoder, and open such files all the same: only their pixels cannot
be had. So a tiny picture is decoded on trial.
"""

import base64
import functools

from urushi.image.libvips import vips

__all__ = ["decodes_hevc"]

# 64 x 64 pixels.
_TRIAL = (
    "AAAAHGZ0eXBoZWljAAAAAG1pZjFoZWljbWlhZgAAAUJtZXRhAAAAAAAAACFoZGxyAAAAAAAAAABwaWN0AAAAAAAAAAAA"
    "AAAAAAAAAA5waXRtAAAAAAABAAAAImlsb2MAAAAAREAAAQABAAAAAAFmAAEAAAAAAAAAegAAACNpaW5mAAAAAAABAAAA"
    "FWluZmUCAAAAAAEAAGh2YzEAAAAAwmlwcnAAAACkaXBjbwAAAHhodmNDAQNwAAAAAAAAAAAAHvAA/P34+AAADwMgAAEA"
    "GEABDAH//wNwAAADAJAAAAMAAAMAHroCQCEAAQArQgEBA3AAAAMAkAAAAwAAAwAeoCCBBZbqSSmubgQEDAgAAAMACAAA"
    "AwAIQCIAAQAHRAHBcrAiQAAAABRpc3BlAAAAAAAAAEAAAABAAAAAEHBpeGkAAAAAAwgICAAAABZpcG1hAAAAAAAAAAEA"
    "AQOBAoMAAACCbWRhdAAAAHYoAa8LYM/XXqf9XIuDRaky5MTwgj924YsIJYO0EOqSrkk2GaZ5RrU/PeaigxtTPcyoul1S"
    "YBKh33Y7JPCpWefrKDd3w6r+2hcoyLz34Gqn9wZ+LMAuNIJqoaxSuQ1zmKogaNhAgg05uRD+F8EyN3Slvd9oPY82"
)


@functools.cache
def decodes_hevc() -> bool:
    """Whether the installed libvips decodes it."""
    try:
        vips().Image.heifload_buffer(base64.b64decode(_TRIAL)).avg()
    except vips().Error:
        return False
    return True
