"""What computes: cores, memory, GPUs by torch, OpenVINO."""

import platform
from collections.abc import Iterator
from pathlib import Path

from wsi_lmc.doctor.check import BROKEN, Check, expect, tried

_GIB = 1 << 30
_GIB_A_CORE = 1.0  # a worker that tiles or embeds takes half of it
_CGROUP_MEMORY = (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"))
_NVIDIA = Path("/proc/driver/nvidia/version")
_TORCH = "Install torch for this machine: https://pytorch.org/get-started"


def checks(out: Path) -> Iterator[Check]:
    """Cores and memory, then torch and OpenVINO: each computes something."""
    del out
    yield _memory()
    yield tried("torch", _torch, _TORCH)
    yield from _gpus()
    yield _openvino()


def _memory() -> Check:
    import psutil

    from wsi_lmc.threads import available_cores

    cores = available_cores()
    memory = min([psutil.virtual_memory().total, *_limits()]) / _GIB
    found = f"{cores} cores ({platform.processor() or platform.machine()}), {memory:.1f} GiB of memory"
    if memory / cores < _GIB_A_CORE:
        workers = max(1, int(memory / _GIB_A_CORE))
        return Check(
            "cores and memory", "warning", found, f"Pass --workers {workers}, so that each has {_GIB_A_CORE:g} GiB."
        )
    return Check("cores and memory", "ok", found)


def _limits() -> list[int]:
    """Memory that containers and batch systems leave us."""
    found: list[int] = []
    for path in _CGROUP_MEMORY:
        try:
            text = path.read_text(encoding="ascii").strip()
        except OSError:
            continue
        found += [int(text)] if text.isdigit() else []
    return found


def _torch() -> str:
    import torch

    from wsi_lmc.encoder import computes_bfloat16

    expect(float((torch.ones(64, 64) @ torch.ones(64, 64)).sum()) == 64.0**3, "it computes wrongly")
    half = "bfloat16" if computes_bfloat16(torch.device("cpu")) else "float32"
    return f"torch {torch.__version__} computes, on this processor best in {half}"


def _gpus() -> Iterator[Check]:
    """Every GPU by name; none is well, too, unless there is one that torch cannot use."""
    try:
        import torch
    except BROKEN:
        return  # was told
    for number in range(torch.cuda.device_count() if torch.cuda.is_available() else 0):
        yield tried(f"GPU {number}", lambda number=number: _gpu(number), _TORCH)
    if torch.cuda.is_available():
        return
    if _NVIDIA.exists():
        yield Check("GPU", "warning", "an NVIDIA driver is there, but torch cannot use it", _TORCH)
    elif torch.backends.mps.is_available():
        yield Check("GPU", "ok", "an Apple GPU is there; it is not used, the CPU is")
    else:
        yield Check("GPU", "ok", "none: the CPU computes; training takes seconds a step there")


def _gpu(number: int) -> str:
    import torch

    ones = torch.ones(64, 64, device=f"cuda:{number}")
    expect(float((ones @ ones).sum()) == 64.0**3, "it computes wrongly")
    about = torch.cuda.get_device_properties(number)
    return f"{about.name}, {about.total_memory / _GIB:.0f} GiB, computes"


def _openvino() -> Check:
    """An extra: that it is missing is no fault, that it is broken is one."""
    from importlib.util import find_spec

    if find_spec("openvino") is None:
        faster = "pip install 'wsi-lmc[openvino]' makes embed about twice as fast on CPUs"
        return Check("OpenVINO", "ok", f"not installed; {faster}")

    def probe() -> str:
        from wsi_lmc.backends import openvino_library

        library = openvino_library()
        devices = library.Core().available_devices
        expect("CPU" in devices, f"it knows no CPU, only {devices}")
        return f"OpenVINO {library.__version__}: {', '.join(devices)}"

    return tried("OpenVINO", probe, "Run: pip install --force-reinstall openvino, or do without --backend openvino.")
