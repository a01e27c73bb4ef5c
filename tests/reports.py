"""Folders to report on, made without any training: all kinds of results, with names as nobody would choose them."""

import json
from pathlib import Path

import cv2
import numpy as np

from wsi_lmc.cohort import SlideEntry
from wsi_lmc.config import write_resolved
from wsi_lmc.discretion import told_discreetly
from wsi_lmc.embedding import EmbedConfig
from wsi_lmc.evaluation import Curve, EncoderResult, Evaluation, Gain, LeftOut, Measure
from wsi_lmc.evaluation.embedding import Plane
from wsi_lmc.evaluation.writing import PLANES, planes_document, to_document
from wsi_lmc.runfolder import Request, add_slides, plan, prepare_run, record
from wsi_lmc.steps.outcome import Outcome
from wsi_lmc.steps.tile import TileConfig

HOSTILE = "<script>alert('x')</script>"
ATTRIBUTE = '"><img src=x onerror=alert(1)>'
PRIVATE = "Jane-Doe-1950"  # in names of files and folders alone


def write_run(folder: Path, slides: int = 6, hidden: bool = False) -> Path:
    """A run of two sites, one of them named by an attacker, in which the last slide has failed."""
    prepare_run(folder)
    home = folder.parent / PRIVATE
    entries = [
        SlideEntry(
            home / f"{PRIVATE} {number}.svs",
            f"slide-{number}",
            patient=f"p{number // 2}",
            site=(HOSTILE, "Łódź & $x^$")[number % 2],
            label=(ATTRIBUTE, "_tumour")[number % 2],
            hidden=hidden,
        )
        for number in range(slides)
    ]
    add_slides(folder, entries)
    settings = EmbedConfig(normalise="macenko", reference=f"{home}/look.png")
    write_resolved(folder, {"tile": TileConfig(), "embed": settings})
    plan(folder, "tile", Request(tuple(entry.slide_id for entry in entries)))
    (folder / "overviews").mkdir(exist_ok=True)
    for number, entry in enumerate(entries):
        if number == slides - 1:
            reason = f"cannot open {entry.path}: {HOSTILE} on tcp://10.1.2.3:8786"
            failed = Outcome(entry.slide_id, "tile", "failed", "not_a_slide", reason, f"See {home}/notes.txt.")
            told = (
                told_discreetly(iter([failed]), entries, {}) if hidden else [failed]
            )  # of others be it an older record
            for outcome in told:
                record(folder, outcome)
            continue
        record(folder, Outcome(entry.slide_id, "tile", "done", tiles=40 + number, mpp=0.25, mpp_source="aperio.MPP"))
        pixels = np.full((300, 200, 3), 40 * number % 255, np.uint8)
        cv2.imwrite(str(folder / "overviews" / f"{entry.slide_id}.jpg"), pixels)
    return folder


def write_training(folder: Path) -> Path:
    """A training that has ended, by its documents."""
    folder.mkdir(parents=True)
    rows = [
        {"step": step, "invariance": 9.0 / (step + 1), "redundancy": 50.0 / (step + 1), "effective_rank": 5.0 + step}
        | ({"held_out_invariance": 10.0 / (step + 1), "held_out_effective_rank": 6.0 + step} if step % 2 else {})
        for step in range(6)
    ]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    said = {
        "encoder_sha256": "ab" * 32,
        "mode": "robust",
        "augmentation": {"scale_low": 0.5, "scale_high": 1.5},
        "trained_mpp": 0.5,
        "tile_px": 256,
        "held_out": "slides",
        "slides": [{"slide_id": "slide-1", "trained_on": 41, "held_out": 0}],
        "config": {"architecture": "vit-demo"},
    }
    (folder / "provenance.json").write_text(json.dumps(said))
    return folder


def an_evaluation() -> Evaluation:
    """Two encoders at two sites; the second, which an attacker named, is ahead of the first."""
    sites = (HOSTILE, "south")
    encoders = tuple(
        EncoderResult(
            *(name, 8, 200, 400, 6, 3),
            measures=(
                Measure("site_auroc", 0.9 - gain, 0.8 - gain, 0.95 - gain, 200, 400, 3, None, 0.5),
                Measure("w2_relative", 0.7 - gain, 0.6 - gain, 0.8 - gain, 200, 400, 3, 0.3, None),
                Measure("transfer_auroc", 0.7 + gain, 0.6 + gain, 0.75 + gain, 200, 400, 3, None, 0.5),
                Measure("transfer_auroc", 0.7 + gain, 0.6 + gain, 0.75 + gain, 200, 400, 3, None, 0.5, sites),
            ),
            left_out=(LeftOut("kbet", f"too few {HOSTILE}"),),
            curves=(Curve(*sites, (0.0, 0.5, 1.0), (0.0, 0.7 + gain, 1.0)),),
        )
        for name, gain in (("plain", 0.0), (ATTRIBUTE, 0.2))
    )
    gain = Gain("transfer_auroc", ATTRIBUTE, "plain", (), 0.2, 0.1, 0.3)
    return Evaluation("site", sites, ("healthy", HOSTILE), {"source": HOSTILE, "seen": 1}, encoders, (gain,))


def write_evaluation_documents(folder: Path) -> Path:
    """The evaluation's documents, without its pictures."""
    folder.mkdir(parents=True)
    (folder / "evaluation.json").write_text(json.dumps(to_document(an_evaluation())))
    x, y = (tuple(np.random.default_rng(seed).normal(size=40).round(3).tolist()) for seed in (0, 1))
    site, label = tuple([0, 1] * 20), tuple([0, 1, -1, 0] * 10)
    planes = [Plane(name, "UMAP", 400, (HOSTILE, "south"), ("healthy", HOSTILE), x, y, site, label)
              for name in ("plain", ATTRIBUTE)]  # fmt: skip
    (folder / PLANES).write_text(json.dumps(planes_document(planes)))
    return folder


def write_scores(folder: Path) -> Path:
    """What ``classify`` writes."""
    folder.mkdir(parents=True)
    score = {"metric": "AUROC", "value": 0.81, "low": 0.7, "high": 0.9, "baseline": 0.5, "baseline_is": "chance",
             "interval_over": "patients", "seed_mean": 0.8, "seed_sd": None}  # fmt: skip
    sites = [
        {"site": site, "split": split, "examples": 20, "unit": "slide", "slides": 20, "patients": 10, "scores": [score]}
        for site, split in ((HOSTILE, "source"), ("south", "target"))
    ]
    document = {"schema": "wsi-lmc/classification", "level": "slide", "head": "abmil", "classes": ["a", ATTRIBUTE]}
    (folder / "scores.json").write_text(json.dumps({**document, "source": HOSTILE, "sites": sites}))
    return folder


def write_study(folder: Path) -> Path:
    """What a study writes."""
    folder.mkdir(parents=True)

    def cells(value: float) -> dict[str, object]:
        cell = {"value": value, "low": value - 0.05, "high": value + 0.05, "seed_sd": 0.01}
        return {"AUROC": cell, "F1": cell}

    rows = [
        {"row": row, "seeds": 5, "at": {"south": cells(value), HOSTILE: cells(value)}, "mean": cells(value),
         "gain": cells(0.8 - value) if row != "lmc" else {}, "within": 0.9, "site": None, "rank": 7.5}
        for row, value in (("untrained", 0.6), ("lmc", 0.8))
    ]  # fmt: skip
    stated = {"classes": ["a", "b"], "settings": {"steps": 100, "data": f"/home/{PRIVATE}"},
              "sites": {HOSTILE: {"tiles": 9, "patients": 3, "by class": {"a": 4, "b": 5}}}}  # fmt: skip
    document = {"schema": "wsi-lmc/study", "reference": "lmc", "interval": "95 %", "stated": stated, "rows": rows}
    (folder / "results.json").write_text(json.dumps(document))
    return folder


def write_everything(folder: Path) -> Path:
    """A run and all that can be made of it."""
    write_run(folder)
    write_training(folder / "checkpoint")
    write_evaluation_documents(folder / "evaluation")
    write_scores(folder / "classification")
    write_study(folder / "study")
    return folder
