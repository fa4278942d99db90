"""Files of ours to the Hugging Face hub: with a card, scores and hashes, in one commit.

What is sent are copies that were checked, so that a file which changes meanwhile changes nothing;
and one commit, so that a network that goes away in the middle leaves the repository as it was.
"""

import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from typing import Any

from urushi.convert.hub_card import Subject, card_text, measured, results_text
from urushi.errors import FileFormatError, HubError, UrushiError
from urushi.files.adapter import AdapterHeader, BaseFacts, read_adapter
from urushi.files.all_in_one_file import read_all_in_one
from urushi.files.container import stated_format
from urushi.files.hub_config import (
    CONFIG_NAME,
    HubBase,
    HubConfig,
    HubFile,
    config_text,
    read_hub_config,
)
from urushi.files.int8_file import int8_path
from urushi.files.model import ModelHeader, graph_path, read_model
from urushi.files.router_file import RouterHeader, read_router, router_graph_path
from urushi.inference.hub import ENDPOINT_VARIABLE, check_repository, without_tokens
from urushi.inference.hub_repository import sha256_of

__all__ = ["Facts", "Parcel", "Pushed", "packed", "push"]

_CARD = "README.md"
_RESULTS = ".eval_results/urushi.yaml"
_ATTRIBUTES = ".gitattributes"


@dataclass(frozen=True)
class Facts:
    """What the author says beyond what a file does.

    Attributes:
        base_model: repository on the hub of the base.
        licence: where the file states none.
        datasets: names on the hub of what it learned from.
        benchmarks: by benchmark, the hub's name for its data.
    """

    base_model: str | None = None
    licence: str = ""
    datasets: Sequence[str] = ()
    benchmarks: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Parcel:
    """What is sent.

    Attributes:
        subject: what the card is of.
        files: where each lies, by its name in the repository.
        texts: card, scores and `config.json`, by their names.
        notes: what the user should know, a sentence each.
    """

    subject: Subject
    files: Mapping[str, Path]
    texts: Mapping[str, str]
    notes: tuple[str, ...]


@dataclass(frozen=True)
class Pushed:
    """What lies on the hub now.

    Attributes:
        repository: `owner/name`.
        url: of the commit.
        revision: the commit; with it these very files are had at any time.
        hashes: SHA-256 by name.
        notes: what the user should know, a sentence each.
    """

    repository: str
    url: str
    revision: str
    hashes: Mapping[str, str]
    notes: tuple[str, ...]


@contextmanager
def packed(path: Path, repository: str, facts: Facts = Facts()) -> Iterator[Parcel]:
    """Make ready what is to be sent, as copies in a folder that goes away afterwards.

    Args:
        path: a model, adapter or all-in-one file.
        repository: `owner/name`.
        facts: what the file does not say.

    Raises:
        FileFormatError: the file is none of these, not sound, or changes meanwhile; or a name is
            none of the hub's.
        HubError: it states no licence.
    """
    check_repository(repository)
    for name in filter(None, (facts.base_model, *facts.datasets, *facts.benchmarks.values())):
        check_repository(name)
    header, parameters, base, sources = _read(Path(path))
    licence = header.licence.strip() or facts.licence.strip()
    if not licence:
        raise HubError(
            f"{path} states no licence, and without one nobody may use it: give --licence, such as "
            "Apache-2.0"
        )
    if facts.licence.strip() and facts.licence.strip() != licence:
        raise HubError(
            f"{path} states the licence {licence!r:.80}, not {facts.licence!r:.80}: leave out "
            "--licence",
        )
    with tempfile.TemporaryDirectory(prefix="urushi-push-") as folder:
        copies = {name: _copied(source, Path(folder) / name) for name, source in sources.items()}
        _check_same(path, next(iter(copies.values())), header)
        config = HubConfig(
            kind=_kind(header),
            file=next(iter(copies)),
            files={
                name: HubFile(sha256=sha256_of(copy), size=copy.stat().st_size)
                for name, copy in copies.items()
            },
            base=None if base is None else _base(base, facts.base_model),
        )
        model_of = None if isinstance(header, ModelHeader) else facts.base_model
        subject = Subject(
            repository, config, header, parameters, licence,
            model_of, facts.datasets, facts.benchmarks,
        )  # fmt: skip
        texts = {CONFIG_NAME: config_text(config), _CARD: card_text(subject)}
        if results := results_text(subject):
            texts[_RESULTS] = results
        yield Parcel(subject, copies, texts, tuple(_notes(subject)))


def _read(path: Path) -> tuple[Any, int, BaseFacts | None, dict[str, Path]]:
    """Header, parameters, base and files by their names in a repository, the one meant first."""
    kind = stated_format(path) if path.is_file() else None
    if kind == "urushi-adapter":
        adapter = read_adapter(path)
        return (
            adapter.header,
            adapter.parameters,
            adapter.header.base,
            {"adapter.safetensors": path},
        )
    if kind == "urushi-model":
        model = read_model(path)
        found = {"model.safetensors": path}
        for beside in (graph_path(path), int8_path(path)):
            if beside.is_file():
                found[f"model{beside.suffix}"] = beside
        return model.header, sum(t.size for t in model.tensors.values()), None, found
    if kind == "urushi-router":
        return _read_router(path)
    if not path.exists():
        raise FileFormatError(f"{path}: there is no such file, expected a model or adapter file")
    raise FileFormatError(
        f"{path}: no model, adapter or all-in-one file of Urushi:  urushi import  makes one of "
        "released weights"
    )


def _read_router(path: Path) -> tuple[Any, int, BaseFacts | None, dict[str, Path]]:
    router = read_router(path)
    found, count = {path.name: path}, sum(t.size for t in router.tensors.values())
    if router_graph_path(path).is_file():
        found[router_graph_path(path).name] = router_graph_path(path)
    if router.header.is_all_in_one:
        united = read_all_in_one(path)
        for member in (*united.experts.values(), *filter(None, [united.guidance])):
            found[member.adapter.path.name] = member.adapter.path
            count += member.adapter.parameters
    return router.header, count, router.header.base, found


def _kind(header: object) -> Any:
    if isinstance(header, RouterHeader):
        return "router"
    return "adapter" if isinstance(header, AdapterHeader) else "model"


def _base(base: BaseFacts, repository: str | None) -> HubBase:
    return HubBase(name=base.name, weights_hash=base.weights_hash, repository=repository)


def _copied(source: Path, target: Path) -> Path:
    try:
        shutil.copyfile(source, target)
    except OSError as error:
        raise FileFormatError(f"{source} cannot be read ({error.strerror or error})") from error
    return target


def _check_same(path: Path, copy: Path, header: Any) -> None:
    try:
        same = _read(copy)[0] == header
    except UrushiError:
        same = False
    if not same:
        raise FileFormatError(f"{path} changed while it was read: push it again")


def _notes(subject: Subject) -> Iterator[str]:
    if subject.config.base is not None and subject.base_model is None:
        yield (
            f"the card names no repository of the base {subject.config.base.name!r}: say where it "
            "lies with --base-model OWNER/NAME"
        )
    unnamed = {s.benchmark for s in measured(subject.header.scores)} - set(subject.benchmarks)
    if unnamed:
        names = ", ".join(sorted(unnamed))
        yield (
            f"boards of the hub do not know the data of {names[:200]}: name them with --benchmark "
            f"{min(unnamed)}=OWNER/DATASET"
        )


def push(
    path: Path,
    repository: str,
    facts: Facts = Facts(),
    *,
    token: str | None = None,
    private: bool = False,
    overwrite: bool = False,
    message: str = "",
    endpoint: str | None = None,
) -> Pushed:
    """Put a model, adapter or all-in-one file on the hub, with what belongs to it.

    Args:
        path: the file.
        repository: `owner/name`; made where it is missing.
        facts: what the file does not say.
        token: that may write there; None for the one of `hf auth login`, or `$HF_TOKEN`.
        private: of a new repository.
        overwrite: also where the repository holds something of others.
        message: of the commit.
        endpoint: address of a mirror of the hub; None for the hub, or `$HF_ENDPOINT`.

    Raises:
        FileFormatError: the file is not sound.
        HubError: there is no token, or the hub refuses, cannot be reached, or holds something else
            than was sent.
        MissingExtraError: huggingface_hub is not installed.
    """
    with packed(path, repository, facts) as parcel:
        from huggingface_hub import constants, get_token

        if constants.HF_HUB_OFFLINE:
            raise HubError("HF_HUB_OFFLINE forbids to ask the hub: unset it to push")
        token = token or get_token()
        if not token:
            raise HubError(
                "pushing needs a token of the hub that may write: log in with  hf auth login, or "
                "set HF_TOKEN"
            )
        endpoint = endpoint or os.environ.get(ENDPOINT_VARIABLE) or constants.ENDPOINT
        try:
            return _sent(parcel, token, private, overwrite, message, endpoint)
        except (HubError, FileFormatError):
            raise
        except Exception as error:
            # Those of the library that asks the network are others in every year.
            raise _refusal(error, repository, endpoint, token) from _safe(error, token)


def _sent(
    parcel: Parcel, token: str, private: bool, overwrite: bool, message: str, endpoint: str
) -> Pushed:
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi

    repository = parcel.subject.repository
    api = HfApi(endpoint=endpoint, token=token)
    api.create_repo(repository, private=private or None, exist_ok=True)
    info = api.model_info(repository)
    there = {entry.rfilename for entry in info.siblings or ()}
    former = _former(api, repository, info.sha, there) if there else None
    if former is None and there - {_ATTRIBUTES, _CARD} and not overwrite:
        first = min(there - {_ATTRIBUTES, _CARD})
        raise HubError(
            f"{repository} holds something else, such as {without_tokens(first)[:100]}: choose "
            "another name, or give --overwrite to put this beside it"
        )
    additions = [
        *(
            CommitOperationAdd(name, _content(copy, endpoint))
            for name, copy in parcel.files.items()
        ),
        *(CommitOperationAdd(name, text.encode()) for name, text in parcel.texts.items()),
    ]
    sent = {operation.path_in_repo for operation in additions}
    gone = (set(former.files if former else ()) | {_RESULTS}) & there - sent
    commit = api.create_commit(
        repository,
        [*additions, *(CommitOperationDelete(name) for name in sorted(gone))],
        commit_message=message or f"{parcel.subject.kind} by {parcel.subject.header.created_by}",
        parent_commit=info.sha if there else None,
    )
    _compare(api, parcel, commit.oid)
    hashes = {name: facts.sha256 for name, facts in parcel.subject.config.files.items()}
    return Pushed(repository, str(commit.commit_url), commit.oid, hashes, parcel.notes)


def _content(copy: Path, endpoint: str) -> Any:
    """What the client is given of a file.

    Files by path go through the hub's own storage service, which mirrors do not have; buffers go
    over plain HTTP.
    """
    from huggingface_hub import constants

    own = endpoint.rstrip("/") == constants._HF_DEFAULT_ENDPOINT.rstrip("/")
    return str(copy) if own else BytesIO(copy.read_bytes())


def _former(api: Any, repository: str, commit: str | None, there: set[str]) -> HubConfig | None:
    """What the repository says of files of ours in it, if it holds any."""
    if CONFIG_NAME not in there:
        return None
    with tempfile.TemporaryDirectory(prefix="urushi-push-") as folder:
        path = api.hf_hub_download(repository, CONFIG_NAME, revision=commit, local_dir=folder)
        return read_hub_config(Path(path))


def _compare(api: Any, parcel: Parcel, commit: str) -> None:
    """Checks that the hub holds what was sent."""
    stated = parcel.subject.config.files
    found = {one.path: one for one in api.get_paths_info(
        parcel.subject.repository, list(stated), revision=commit
    )}  # fmt: skip
    for name, facts in stated.items():
        one = found.get(name)
        held = None if one is None else (one.lfs.sha256 if one.lfs else facts.sha256)
        if one is None or one.size != facts.size or held != facts.sha256:
            raise HubError(
                f"{parcel.subject.repository} holds another {name} at commit {commit[:12]} than "
                "was sent: push it again"
            )


def _refusal(error: Exception, repository: str, endpoint: str, token: str) -> HubError:
    """One sentence on why the hub did not take it; never with a token in it."""
    chain, one = [], error
    while one is not None and one not in chain:
        chain.append(one)
        one = one.__cause__ or one.__context__
    status = next(
        (code for e in chain if (code := getattr(getattr(e, "response", None), "status_code", 0))),
        0,
    )
    reasons = {
        401: "the hub does not know this token: make one that may write, then  hf auth login",
        403: f"this token may not write to {repository}: take one that may, or another owner",
        404: f"the hub finds no {repository} that this token may write to: check the name and the "
        "token's rights",
        409: f"{repository} is being changed by somebody else: push again",
        412: f"{repository} was changed by somebody else meanwhile: look at it, then push again",
        413: f"the hub takes no files of this size in {repository}: make it smaller with "
        "urushi import --half",
        429: "the hub takes no more for the moment: push again later",
    }  # fmt: skip
    if status in reasons:
        return HubError(reasons[status])
    lines = [line for line in without_tokens(str(error), token).splitlines() if line.strip()]
    said = " ".join(lines[0].split())[:200].rstrip(".: ") if lines else type(error).__name__
    if status >= 500:
        return HubError(f"the hub failed ({status}), and nothing was changed: push again later")
    if status >= 400 or isinstance(error, ValueError):
        said = " ".join(" ".join(lines).split())[:300].rstrip(".: ")
        return HubError(f"the hub does not take it ({said}): correct that, and push again")
    return HubError(
        f"{repository} was not changed, because {endpoint} could not be reached to the end "
        f"({said}): connect this computer to the network, and push again"
    )


def _safe(error: Exception, token: str) -> Exception | None:
    """The cause, unless what it says holds a token."""
    return error if without_tokens(repr(error), token) == repr(error) else None
