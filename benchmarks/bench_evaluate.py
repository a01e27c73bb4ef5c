"""How long an evaluation takes, and how much memory, on a million tiles of random features at five sites.

    python benchmarks/bench_evaluate.py [TILES] [DIMENSION]

Random float16 features in memory, 100 slides of 50 patients, two classes; every metric and the pictures.
"""

import resource
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from wsi_lmc.evaluation import EvaluateConfig, FeatureSet, SlideFeatures, evaluate, prepare, write_evaluation


def random_set(tiles: int, dimension: int) -> FeatureSet:
    """A set of random features: 20 slides a site, two a patient."""
    rng = np.random.default_rng(0)
    count = tiles // 100
    slides = []
    for number in range(100):
        features = rng.standard_normal((count, dimension), np.float32).astype(np.float16)
        labels = rng.integers(0, 2, count)
        origins = np.stack([np.arange(count) % 1000 * 256, np.arange(count) // 1000 * 256], 1).astype(np.int32)
        slide = f"s{number:03d}"
        slides.append(SlideFeatures(slide, f"p{number // 2}", f"site {number // 20}", features, labels, origins))
    return FeatureSet("random", tuple(slides), ("a", "b"), tiles)


def main() -> None:
    """Print seconds and the peak of memory of each part."""
    tiles, dimension = (int(text) for text in [*sys.argv[1:], *("1000000", "192")[len(sys.argv) - 1 :]])

    def said(what: str, start: float) -> None:
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
        print(f"{what}: {time.perf_counter() - start:.1f} s, peak {peak:.2f} GiB", flush=True)

    start = time.perf_counter()
    one = random_set(tiles, dimension)
    said(f"made {tiles} x {dimension}", start)
    config = EvaluateConfig()
    start = time.perf_counter()
    ready, _ = prepare([one], config)
    said("drawn", start)
    start = time.perf_counter()
    evaluation = evaluate(ready, config)
    said("measured", start)
    start = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        write_evaluation(evaluation, ready, Path(folder))
    said("written and drawn", start)


if __name__ == "__main__":
    main()
