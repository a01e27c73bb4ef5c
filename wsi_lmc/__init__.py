"""wsi-lmc: stain-invariant features for whole-slide images.

``tile`` cuts slides into calibrated tiles, ``train`` fits an encoder to one site's unlabelled tiles by Latent
Manifold Compaction, ``embed`` turns every tile into features. Importing this package loads neither torch nor dask.
"""

__version__ = "0.1.0"
