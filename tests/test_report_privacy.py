"""What messages may not tell."""

import socket

import pytest

from wsi_lmc.report.privacy import told_setting, without_places


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("cannot open /data/Jane Doe/x.svs: not a slide", "cannot open x.svs: not a slide"),
        (r"see C:\Users\jane\x.svs", "see x.svs"),
        (r"\\server\share\x.svs broke", "x.svs broke"),
        ("'/a b/c d/e f.svs' is damaged", "'e f.svs' is damaged"),
        ("tiles/jane/x.zarr is damaged", "x.zarr is damaged"),
        ("/data/a.svs and /data/b.svs", "a.svs and b.svs"),
        ("worker at tcp://10.1.2.3:99 died", "worker at (address) died"),
        ("10.1.2.3:99 and jane@host.org", "(address) and (address)"),
        ("expected 0.25 µm. Pass --mpp 0.25.", "expected 0.25 µm. Pass --mpp 0.25."),
    ],
)
def test_of_a_path_the_last_part_stays(text: str, told: str) -> None:
    assert without_places(text) == told


def test_the_machine_is_not_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket, "gethostname", lambda: "radon-7")
    assert without_places("radon-7 died") == "(machine) died"


def test_long_messages_take_no_time() -> None:
    assert len(without_places("a/" * 100_000)) < 1000
    assert len(without_places("/" + "a b" * 100_000)) < 1000


def test_settings_are_told_and_files_are_not() -> None:
    assert told_setting(None) == "not given"
    assert told_setting(True) == "yes"
    assert told_setting(0.25) == "0.25"
    assert told_setting("auto") == "auto"
    assert told_setting("/data/look.png") == "(a file)"
    assert told_setting("hf-hub:paige-ai/Virchow") == "hf-hub:paige-ai/Virchow"
