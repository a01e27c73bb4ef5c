"""Publishing an encoder on the Hugging Face Hub: three files, in one commit, when somebody asks for it.

Nothing else of a checkpoint folder is read for it: ``provenance.json`` names slides. The token is the one that
huggingface_hub finds (HF_TOKEN, or its own login); it is never a parameter here and in no message.
"""

import json
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import torch
from huggingface_hub import CommitOperationAdd, HfApi, constants, get_token
from huggingface_hub.errors import HfHubHTTPError, HTTPError, RepositoryNotFoundError

from wsi_lmc.encoder.card import CARD, REPOSITORY
from wsi_lmc.encoder.folder import CONFIG, ENCODER_FOLDER, METADATA, UNKNOWN, WEIGHTS
from wsi_lmc.encoder.loading import load_encoder
from wsi_lmc.errors import UsageError
from wsi_lmc.provenance import created_by

_NAME = r"[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?"
_LICENCE = r"[a-z0-9][a-z0-9.+-]*"
_METADATA_BLOCK = re.compile(r"---\n(.*?)^---$", re.DOTALL | re.MULTILINE)
_LICENCE_LINE = re.compile(r"^license:[ \t]*(\S+).*$", re.MULTILINE)
_LOOPBACK = ("127.0.0.1", "::1", "localhost")
_REFUSALS = {
    401: ("the Hub does not accept this token", "a valid one", "Log in again with 'hf auth login', or renew HF_TOKEN."),
    403: ("this token may not write to {0}", "a repository of yours", "Check the name, and the token's permissions."),
    404: ("the Hub knows no {0} that you may write to", "a repository of yours", "Check the name and the token."),
    409: ("{0} was made by somebody else just now", "one writer at a time", "Try again."),
}


@dataclass(frozen=True)
class Publication:
    """What goes where: ``files`` are the bytes of every file by name, there is no other."""

    repository: str
    files: Mapping[str, bytes]
    licence: str
    private: bool
    endpoint: str

    @property
    def url(self) -> str:
        """Where it is read."""
        return f"{self.endpoint}/{self.repository}"


def prepare_publication(
    checkpoint: Path, repository: str, licence: str | None = None, private: bool = True, endpoint: str | None = None
) -> Publication:
    """Gather the files of an encoder that was trained here, after checking its weights; nothing is sent.

    Args:
        checkpoint: the folder that ``train`` wrote, or its ``encoder/``.
        repository: "OWNER/NAME".
        licence: of the weights, as the Hub names licences; by default what the card says already.
        private: whether others shall not see it.
        endpoint: another Hub than huggingface.co; by default HF_ENDPOINT, as for everything of huggingface_hub.

    Raises:
        UsageError: no such encoder, or a repository, licence or endpoint that cannot be.
        StoreError: the weights are damaged.
    """
    endpoint = (endpoint or constants.ENDPOINT).rstrip("/")
    _check(repository, licence, endpoint)
    load_encoder(f"local-dir:{checkpoint}", torch.device("cpu"))  # compares the weights with their SHA-256
    folder = checkpoint / ENCODER_FOLDER if (checkpoint / ENCODER_FOLDER).is_dir() else checkpoint
    config = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
    if "weights_sha256" not in config.get(METADATA, {}) or not (folder / CARD).is_file():
        raise UsageError(
            f"{folder} holds no encoder of ours with its {CARD}",
            "what 'wsi-lmc train' wrote",
            "Train with this version.",
        )
    card, licence = _card(folder / CARD, repository, licence)
    for part in (config[METADATA], config["pretrained_cfg"]):
        part["license"] = licence
    files = {
        WEIGHTS: (folder / WEIGHTS).read_bytes(),
        CONFIG: json.dumps(config, indent=2).encode(),
        CARD: card.encode(),
    }
    return Publication(repository, files, licence, private, endpoint)


def check_token() -> None:
    """Make sure that there is a token, before anything is asked of anybody.

    Raises:
        UsageError: there is none.
    """
    if not get_token():
        raise UsageError(
            "no token of the Hugging Face Hub", "HF_TOKEN, or a login", "Run 'hf auth login', or set HF_TOKEN."
        )


def publish(publication: Publication) -> str:
    """Upload the files in one commit, into a repository that is made if need be; returns the commit's address.

    Raises:
        UsageError: the Hub cannot be reached or refuses, or the repository is more or less visible than asked for.
    """
    check_token()
    api = HfApi(endpoint=publication.endpoint, library_name="wsi-lmc")
    repository = publication.repository
    with _explained(publication):
        try:
            private = bool(api.model_info(repository).private)
        except RepositoryNotFoundError:
            private = publication.private
            api.create_repo(repository, private=private)
        if private != publication.private:
            raise UsageError(
                f"{repository} exists and is {_visibility(private)}",
                f"a {_visibility(publication.private)} one",
                f"Pass --{_visibility(private)}, or change it on the Hub.",
            )
        operations = [CommitOperationAdd(name, content) for name, content in publication.files.items()]
        return api.create_commit(repository, operations, commit_message=f"Encoder by {created_by()}").commit_url


def _check(repository: str, licence: str | None, endpoint: str) -> None:
    if not re.fullmatch(f"{_NAME}/{_NAME}", repository):
        raise UsageError(f"repository {repository!r}", "OWNER/NAME", "Name yourself or your organisation first.")
    if licence is not None and not re.fullmatch(_LICENCE, licence):
        raise UsageError(f"licence {licence!r}", "its identifier on the Hub, such as cc-by-4.0", "Correct it.")
    address = urlsplit(endpoint)
    if not address.hostname or (address.scheme != "https" and address.hostname not in _LOOPBACK):
        raise UsageError(f"endpoint {endpoint}", "https://HOST", "A token must not travel unencrypted.")


def _card(path: Path, repository: str, licence: str | None) -> tuple[str, str]:
    """The card with its repository's name filled in and the licence, where one is given; and the licence it states."""
    text = path.read_text(encoding="utf-8").replace(REPOSITORY, repository)
    metadata = _METADATA_BLOCK.match(text)
    if metadata is None:
        raise UsageError(f"no metadata at the top of {path}", "YAML between two lines of ---", "Write it again.")
    stated = _LICENCE_LINE.search(metadata[1])
    if licence is None:
        return text, stated[1] if stated else UNKNOWN
    line = f"license: {licence}"
    block = _LICENCE_LINE.sub(line, metadata[1], count=1) if stated else f"{metadata[1]}{line}\n"
    return text[: metadata.start(1)] + block + text[metadata.end(1) :], licence


def _visibility(private: bool) -> str:
    return "private" if private else "public"


@contextmanager
def _explained(publication: Publication) -> Iterator[None]:
    """Turn the ways in which the Hub refuses, or is not there, into errors a user can act on."""
    try:
        yield
    except (HTTPError, OSError) as error:
        raise _refusal(error, publication) from error
    except (RuntimeError, ValueError) as error:  # as huggingface_hub reports a broken upload and metadata it refuses
        raise _refusal(error.__cause__ or error, publication) from error


def _refusal(error: BaseException, publication: Publication) -> UsageError:
    if isinstance(error, HfHubHTTPError):
        status = error.response.status_code
        said = (error.server_message or "no reason given").splitlines()[0]
        other = (f"the Hub answered {status} ({said})", "an upload", "Nothing was published; try again later.")
        found, expected, remedy = _REFUSALS.get(status, other)
        return UsageError(found.format(publication.repository), expected, remedy)
    said = " ".join(str(error).split())[:300]
    if isinstance(error, HTTPError | OSError):
        return UsageError(
            f"no connection to {publication.endpoint} ({said})",
            "one to the Hugging Face Hub",
            "Check the network, the proxy and HF_HUB_OFFLINE; then run the same command again.",
        )
    return UsageError(
        f"the upload to {publication.repository} failed ({said})",
        "three files accepted",
        "Nothing was published; run the same command again.",
    )
