"""Model files from a repository of the Hugging Face hub: weights, and what stands beside them."""

from pathlib import Path

from urushi.errors import FileFormatError, MissingExtraError
from urushi.inference.devices import is_installed
from urushi.inference.fetch import Release, release_file

__all__ = ["MODEL_FILE", "model_from_hub"]

MODEL_FILE = "model.safetensors"
# The graph that OpenVINO runs, and the ranges of its 8-bit form; a model may have neither.
_BESIDE = (".onnx", ".int8")


def model_from_hub(
    repository: str,
    *,
    file: str = MODEL_FILE,
    revision: str | None = None,
    endpoint: str | None = None,
) -> Path:
    """Where a model file of a repository lies now: in the hub's cache, fetched if it was not there.

    What was fetched before is taken without asking the network; another `revision` is fetched anew.

    Args:
        repository: `owner/name`.
        file: the model file; `NAME.onnx` and `NAME.int8` come with it, where they are there.
        revision: branch, tag or commit; None for the main branch.
        endpoint: address of a mirror of the hub; None for the hub, or `$HF_ENDPOINT`.

    Raises:
        FileFormatError: the name is none, or the file cannot be had.
        MissingExtraError: huggingface_hub is not installed.
    """
    if len([part for part in repository.split("/") if part]) != 2 or repository.count("/") != 1:
        raise FileFormatError(f"repository {repository!r}: expected owner/name")
    if Path(file).suffix != ".safetensors":
        raise FileFormatError(f"{file!r} in {repository}: expected the name of a .safetensors file")
    if not is_installed("huggingface_hub"):
        raise MissingExtraError("huggingface_hub, which fetching needs,", "hub")

    def release(name: str) -> Release:
        page = f"https://huggingface.co/{repository}"
        return Release(repository, "see its page", page, repository, name, revision)

    known = release_file(release(file), True, endpoint)
    # The weights come last: whoever finds them in the cache finds all that belongs to them.
    for suffix in _BESIDE if known is None else ():
        release_file(release(str(Path(file).with_suffix(suffix))), False, endpoint, optional=True)
    path = known or release_file(release(file), False, endpoint)
    assert path is not None
    return path
