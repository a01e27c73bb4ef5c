"""Steps run by dask: worker processes on this machine, jobs of a batch system, or a running cluster."""

from wsi_lmc.cluster.executor import DaskExecutor, make_executor
from wsi_lmc.cluster.local import CPU, GPU, LocalWorkers

__all__ = ["CPU", "GPU", "DaskExecutor", "LocalWorkers", "make_executor"]
