"""Publishing an encoder: what is sent, byte for byte, to a Hub on loopback; who is asked; what is refused."""

import json
import os
import pty
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import timm
import torch
import yaml
from safetensors.torch import load_file, save_file

from tests.hub import TOKEN, Hub, serving
from wsi_lmc.encoder import EncoderConfig, EncoderMetadata, TrainingFacts, build_encoder, save_encoder, write_card
from wsi_lmc.encoder.hub import check_token, prepare_publication, publish
from wsi_lmc.errors import StoreError, UsageError
from wsi_lmc.stain import ViewConfig

# huggingface_hub's own way of sending a file; with every warning an error it would end the upload
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")
CANARY = "CANARY-Jane-Doe-1957"
SENT = ["README.md", "config.json", "model.safetensors"]
REPOSITORY = "lab/stain-free"


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    """A finished checkpoint folder, with everything in it that must stay where it is."""
    folder = tmp_path / "ckpt"
    metadata = EncoderMetadata("vit-demo", "robust", trained_mpp=0.5, steps=12)
    save_encoder(folder / "encoder", build_encoder(EncoderConfig("vit-demo"), 96, seed=5), metadata)
    write_card(folder / "encoder", TrainingFacts(ViewConfig(), 2, 50, "tiles", 8, {}, {}))
    (folder / "provenance.json").write_text(json.dumps({"slides": [{"slide_id": CANARY}]}))
    (folder / "encoder" / "notes.txt").write_text(CANARY)
    (folder / "metrics.jsonl").write_text(CANARY)
    return folder


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Hub]:
    """A Hub and a token for it, for this process and for those it starts."""
    import huggingface_hub.constants as constants

    # their chunk store is a service of its own, not HTTP that a test could imitate; Git LFS is what they fall back to
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    settings = {"HF_HUB_DISABLE_XET": "1", "HF_TOKEN": TOKEN, "HF_HOME": str(tmp_path / "home")}
    with serving() as served:
        for name, value in (settings | {"HF_ENDPOINT": served.address}).items():
            monkeypatch.setenv(name, value)
        yield served


def _push(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "wsi_lmc", "push", *map(str, arguments)]
    return subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=120, check=False)


def test_three_files_arrive_byte_for_byte_and_timm_reads_them(checkpoint: Path, hub: Hub, tmp_path: Path) -> None:
    done = _push(checkpoint, REPOSITORY, "--licence", "cc-by-4.0", "--yes")
    assert done.returncode == 0, done.stderr
    assert f"published: {hub.address}/{REPOSITORY}/commit/1" in done.stdout
    assert TOKEN not in done.stdout + done.stderr
    assert hub.private == {REPOSITORY: True}, "private unless asked otherwise"
    files = hub.files[REPOSITORY]
    assert sorted(files) == SENT
    assert CANARY.encode() not in hub.received
    assert str(tmp_path).encode() not in hub.received

    received = tmp_path / "received"
    received.mkdir()
    for name, content in files.items():
        (received / name).write_bytes(content)
    assert files["model.safetensors"] == (checkpoint / "encoder" / "model.safetensors").read_bytes()
    images = torch.rand(2, 3, 96, 96, generator=torch.Generator().manual_seed(1))
    ours = build_encoder(EncoderConfig("vit-demo"), 96, seed=5).eval()
    assert torch.equal(timm.create_model(f"local-dir:{received}", pretrained=True).eval()(images), ours(images))

    card, config = files["README.md"].decode(), json.loads(files["config.json"])
    assert yaml.safe_load(card.split("---\n")[1])["license"] == "cc-by-4.0"
    assert (config["pretrained_cfg"]["license"], config["wsi_lmc"]["license"]) == ("cc-by-4.0", "cc-by-4.0")
    assert f"`hf-hub:{REPOSITORY}`" in card
    assert "OWNER/NAME" not in card
    unchanged = json.loads((checkpoint / "encoder" / "config.json").read_text())
    assert unchanged["wsi_lmc"]["license"] == "unknown", "the checkpoint itself is left alone"


def test_without_a_terminal_nothing_is_sent_unless_told(checkpoint: Path, hub: Hub) -> None:
    refused = _push(checkpoint, REPOSITORY)
    assert refused.returncode == 2
    assert "--yes" in refused.stderr
    assert hub.requests == []


@pytest.mark.parametrize(("answer", "code", "sent"), [("y\n", 0, SENT), ("\n", 1, [])])
def test_on_a_terminal_it_asks_after_showing(
    answer: str, code: int, sent: list[str], checkpoint: Path, hub: Hub
) -> None:
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "wsi_lmc", "push", str(checkpoint), REPOSITORY, "--public"]
    process = subprocess.Popen(command, stdin=theirs, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    os.close(theirs)
    os.write(ours, answer.encode())
    said = process.communicate(timeout=120)[0]
    os.close(ours)
    assert process.returncode == code, said
    shown = said[: said.index("Upload?")]
    assert "BY EVERYBODY; licence of the weights: unknown" in shown
    size = (checkpoint / "encoder" / "model.safetensors").stat().st_size
    assert f"{size:,} bytes" in shown
    assert all(name in shown for name in SENT)
    assert sorted(hub.files.get(REPOSITORY, {})) == sent
    assert hub.private == ({REPOSITORY: False} if sent else {})


def test_a_second_upload_replaces_the_first(checkpoint: Path, hub: Hub) -> None:
    publish(prepare_publication(checkpoint, REPOSITORY, "mit", endpoint=hub.address))
    publish(prepare_publication(checkpoint, REPOSITORY, "cc-by-4.0", endpoint=hub.address + "/"))
    assert b"license: cc-by-4.0" in hub.files[REPOSITORY]["README.md"]
    assert hub.requests.count("POST /api/repos/create") == 1


@pytest.mark.parametrize(("there", "asked"), [(False, True), (True, False)])
def test_a_repository_of_other_visibility_is_left_alone(there: bool, asked: bool, checkpoint: Path, hub: Hub) -> None:
    hub.private[REPOSITORY] = there
    names = {True: "private", False: "public"}
    with pytest.raises(UsageError, match=f"exists and is {names[there]}; expected a {names[asked]} one"):
        publish(prepare_publication(checkpoint, REPOSITORY, private=asked, endpoint=hub.address))
    assert hub.files == {}


def test_a_card_that_was_edited_is_uploaded_as_it_is(checkpoint: Path, hub: Hub) -> None:
    path = checkpoint / "encoder" / "README.md"
    edited = path.read_text().replace("license: unknown", "license: cc0-1.0") + "\nColon, two hospitals.\n"
    path.write_text(edited)
    publication = prepare_publication(checkpoint / "encoder", REPOSITORY, endpoint=hub.address)
    assert publication.files["README.md"].decode() == edited.replace("OWNER/NAME", REPOSITORY)
    assert publication.licence == "cc0-1.0"
    assert json.loads(publication.files["config.json"])["wsi_lmc"]["license"] == "cc0-1.0"


@pytest.mark.parametrize(
    ("repository", "token", "broken", "licence", "said"),
    [
        ("somebody/else", TOKEN, "", None, "this token may not write to somebody/else"),
        (REPOSITORY, "hf_wrong", "", None, "does not accept this token"),
        (REPOSITORY, TOKEN, "/commit/", None, r"answered 418 \(out of tea\)"),
        (REPOSITORY, TOKEN, "/lfs/objects", None, r"answered 418 \(out of tea\)"),
        (REPOSITORY, TOKEN, "/lfs/", None, r"answered 418 \(out of tea\)"),
        (REPOSITORY, TOKEN, "", "no-such-licence", "must be one of ours"),
    ],
)
def test_refusals_of_the_hub_are_explained(
    repository: str,
    token: str,
    broken: str,
    licence: str | None,
    said: str,
    checkpoint: Path,
    hub: Hub,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    hub.broken = broken
    monkeypatch.setenv("HF_TOKEN", token)
    with pytest.raises(UsageError, match=said) as caught:
        publish(prepare_publication(checkpoint, repository, licence, endpoint=hub.address))
    assert token not in str(caught.value)
    assert hub.files == {}


def test_another_ones_repository_is_refused_where_it_can_be_seen(checkpoint: Path, hub: Hub) -> None:
    hub.private["somebody/else"] = True
    with pytest.raises(UsageError, match="this token may not write to somebody/else"):
        publish(prepare_publication(checkpoint, "somebody/else", endpoint=hub.address))


def test_no_network_is_said(checkpoint: Path, hub: Hub) -> None:
    with serving() as gone:
        nowhere = gone.address
    with pytest.raises(UsageError, match=f"no connection to {nowhere}"):
        publish(prepare_publication(checkpoint, REPOSITORY, endpoint=nowhere))


def test_no_token_is_said_before_anything_is_asked(
    checkpoint: Path, hub: Hub, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("HF_TOKEN")
    done = _push(checkpoint, REPOSITORY, "--yes")
    assert done.returncode == 2
    assert "no token of the Hugging Face Hub" in done.stderr
    assert hub.requests == []
    monkeypatch.setattr("huggingface_hub.constants.HF_TOKEN_PATH", str(tmp_path / "none"))
    with pytest.raises(UsageError, match="hf auth login"):
        check_token()


def test_damaged_weights_are_never_sent(checkpoint: Path, hub: Hub) -> None:
    path = checkpoint / "encoder" / "model.safetensors"
    weights = load_file(path)
    weights["norm.bias"][3] += 1e-6
    save_file(weights, path)
    with pytest.raises(StoreError, match="SHA-256"):
        prepare_publication(checkpoint, REPOSITORY)
    assert hub.requests == []


@pytest.mark.parametrize(
    ("repository", "licence", "endpoint", "said"),
    [
        ("stain-free", None, None, "OWNER/NAME"),
        ("lab/../other", None, None, "OWNER/NAME"),
        (REPOSITORY, "Mine, all mine", None, "identifier on the Hub"),
        (REPOSITORY, None, "http://hub.example.org", "unencrypted"),
        (REPOSITORY, None, "hub.example.org", "https://HOST"),
    ],
)
def test_what_cannot_be_is_refused_first(
    repository: str, licence: str | None, endpoint: str | None, said: str, checkpoint: Path
) -> None:
    with pytest.raises(UsageError, match=said):
        prepare_publication(checkpoint, repository, licence, endpoint=endpoint)


def test_only_an_encoder_of_ours_with_its_card_goes_out(checkpoint: Path) -> None:
    (checkpoint / "encoder" / "README.md").write_text("Colon.\n")
    with pytest.raises(UsageError, match="no metadata at the top of"):
        prepare_publication(checkpoint, REPOSITORY)
    (checkpoint / "encoder" / "README.md").write_text("---\ntags: [a]\n---\nColon.\n")
    assert prepare_publication(checkpoint, REPOSITORY).licence == "unknown"
    card = prepare_publication(checkpoint, REPOSITORY, "mit").files["README.md"]
    assert card == b"---\ntags: [a]\nlicense: mit\n---\nColon.\n"
    (checkpoint / "encoder" / "README.md").unlink()
    with pytest.raises(UsageError, match="no encoder of ours with its README"):
        prepare_publication(checkpoint, REPOSITORY)
