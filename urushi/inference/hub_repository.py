"""Repositories of the hub that hold files of ours, all of one commit and compared with hashes.

`urushi push` writes them. Everything in one is taken from the commit at which its `config.json` was
read, so that files of two states are never mixed, and each is compared with the hash stated there.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from urushi.errors import FileFormatError
from urushi.files.hub_config import CONFIG_NAME, HubConfig, read_hub_config
from urushi.files.model import read_header
from urushi.inference.hub import cached_file, check_repository, hub_file, model_from_hub
from urushi.inference.zoo import find_model, zoo_names

__all__ = ["Pulled", "parts_of_restorer", "pull", "sha256_of"]

_DEFAULT = "model.safetensors"


@dataclass(frozen=True)
class Pulled:
    """What was taken from a repository.

    Attributes:
        repository: `owner/name`.
        revision: the commit; with it the same files are had at any time.
        config: what the repository says of them.
        folder: of the hub's cache, where they lie under their names.
        downloaded: whether one of them was not here before.
        notes: what the user should know, a sentence each.
    """

    repository: str
    revision: str
    config: HubConfig
    folder: Path
    downloaded: bool
    notes: tuple[str, ...] = ()

    @property
    def path(self) -> Path:
        """The file that is meant."""
        return self.folder / self.config.file


def pull(
    repository: str,
    *,
    revision: str | None = None,
    endpoint: str | None = None,
    newest: bool = True,
    offline: bool = False,
) -> Pulled:
    """Fetch the files of a repository into the hub's cache, those that are not there.

    Args:
        repository: `owner/name`.
        revision: branch, tag or commit; None for the main branch.
        endpoint: address of a mirror of the hub; None for the hub, or `$HF_ENDPOINT`.
        newest: ask what the branch is at now; False takes what was fetched before, if it was.
        offline: ask no network.

    Raises:
        FileFormatError: the repository is none of ours, a file cannot be had, or is another one
            than its `config.json` states.
        MissingExtraError: huggingface_hub is not installed.
    """
    found = _config_of(repository, revision, endpoint, newest, offline)
    if found is None:
        raise FileFormatError(
            f"{repository} holds nothing that  urushi push  put there: a model file in it is had "
            "with  urushi.Restorer.from_hub, other weights with  urushi import"
        )
    path, config, notes = found
    # The cache keeps each commit in a folder of that name.
    commit, downloaded = path.parent.name, False
    place = {"page": _page(repository), "endpoint": endpoint}
    for name, stated in config.files.items():
        file = cached_file(repository, name, commit)
        if file is None and offline:
            raise FileFormatError(
                f"{name} of {repository} has not been fetched yet: leave out --offline once"
            )
        here = file is not None
        file = file or hub_file(repository, name, commit, **place)
        assert file is not None
        if sha256_of(file) != stated.sha256:
            raise FileFormatError(
                f"{file} is another file than {repository} states at commit {commit[:12]} (SHA-256 "
                f"{stated.sha256[:16]}...): "
                + (
                    "delete it and pull again"
                    if here
                    else f"it was replaced, see {_page(repository)}"
                )
            )
        downloaded = downloaded or not here
    return Pulled(repository, commit, config, path.parent, downloaded, tuple(notes))


def _config_of(
    repository: str, revision: str | None, endpoint: str | None, newest: bool, offline: bool
) -> tuple[Path, HubConfig, list[str]] | None:
    """Where the repository's `config.json` lies and what it says; None where it is not of ours."""
    check_repository(repository)
    known, notes = cached_file(repository, CONFIG_NAME, revision), []
    path = known
    if known is None or (newest and not offline):
        if offline:
            raise FileFormatError(
                f"{repository} has not been fetched yet, and fetching needs a network: leave out "
                "--offline once"
            )
        page = _page(repository)
        try:
            path = hub_file(
                repository, CONFIG_NAME, revision, page=page, endpoint=endpoint, optional=True
            )
        except FileFormatError as error:
            if known is None or not _no_answer(error):
                raise
            notes.append(
                f"the hub does not answer: commit {known.parent.name[:12]}, which was fetched "
                "before, is taken"
            )
    config = None if path is None else read_hub_config(path)
    return None if path is None or config is None else (path, config, notes)


def _no_answer(error: FileFormatError) -> bool:
    """Whether nobody could be asked, as opposed to somebody who refused."""
    return getattr(getattr(error.__cause__, "response", None), "status_code", 500) >= 500


def parts_of_restorer(
    repository: str, *, file: str | None, revision: str | None
) -> tuple[str | Path, Sequence[Path]]:
    """The model and the adapters that restore as a repository's file is meant to.

    What was fetched before is taken without asking the network.

    Args:
        repository: `owner/name`, made by `urushi push` or by hand.
        file: the model file; None for what the repository says, or `model.safetensors`.
        revision: branch, tag or commit; None for the main branch.

    Raises:
        FileFormatError: it cannot be had, is a router, or its base is not known.
        MissingExtraError: huggingface_hub is not installed.
    """
    if file is not None:
        return model_from_hub(repository, file=file, revision=revision), ()
    found = _pulled_before(repository, revision)
    if found is None:
        return model_from_hub(repository, revision=revision), ()
    if found.config.kind == "router":
        raise FileFormatError(
            f"{repository} holds {found.config.file}, which chooses among experts:  urushi pull "
            f"{repository} -o FOLDER, and give that file to urushi.AutoRestorer"
        )
    if found.config.kind == "adapter":
        return _base_of(found), (found.path,)
    return found.path, ()


def _pulled_before(repository: str, revision: str | None) -> Pulled | None:
    """The repository's files, fetched where they are not here; None where they are not of ours."""
    check_repository(repository)
    if cached_file(repository, CONFIG_NAME, revision) is None:
        if cached_file(repository, _DEFAULT, revision) is not None:
            return None  # filled by hand, and fetched before
        if _config_of(repository, revision, None, False, False) is None:
            return None
    return pull(repository, revision=revision, newest=False)


def _base_of(found: Pulled) -> Path:
    """The model that a pulled adapter belongs to: one that ships, or one of the hub."""
    base = found.config.base
    assert base is not None
    for name in zoo_names():
        path = find_model(name)
        if read_header(path).weights_hash == base.weights_hash:
            return path
    if base.repository is None:
        raise FileFormatError(
            f"{found.repository} is an adapter of {base.name!r} (weights {base.weights_hash[:12]}),"
            " which does not ship, and does not say where that is: get it, then  "
            f"Restorer(MODEL, adapters=[Adapter.from_hub({found.repository!r})])"
        )
    model = _pulled_before(base.repository, None)
    if model is None:
        return model_from_hub(base.repository)
    if model.config.kind != "model":
        raise FileFormatError(
            f"{found.repository} names {base.repository} as its base, which is a "
            f"{model.config.kind}: tell its author, and give the model yourself"
        )
    return model.path


def sha256_of(path: Path) -> str:
    """The SHA-256 of a file's content.

    Raises:
        FileFormatError: it cannot be read.
    """
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise FileFormatError(f"{path} cannot be read ({error.strerror or error})") from error


def _page(repository: str) -> str:
    return f"https://huggingface.co/{repository}"
