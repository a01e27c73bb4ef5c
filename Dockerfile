# syntax=docker/dockerfile:1
# wsi-lmc in an image, for users who are not root: docker build --target cpu -t wsi-lmc:cpu .   (or --target cuda)
# Versions are those the tests passed with (constraints.txt). Nothing secret is needed to build it, or copied into it.

FROM python:3.12.12-slim-trixie AS base
ENV PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
# A compiler, with which torch compiles what it trains; without one everything works, slower.
RUN apt-get update && apt-get install -y --no-install-recommends g++ && rm -rf /var/lib/apt/lists/*
RUN groupadd --gid 1000 wsi && useradd --uid 1000 --gid 1000 --create-home wsi \
    && python -m venv /opt/wsi-lmc && mkdir /data && chown wsi:wsi /data
ENV PATH=/opt/wsi-lmc/bin:$PATH
WORKDIR /src
COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY wsi_lmc ./wsi_lmc

FROM base AS cpu
# torch without CUDA, a tenth of the size; OpenVINO computes features on CPUs twice as fast.
RUN pip install --no-deps --index-url https://download.pytorch.org/whl/cpu -c constraints.txt torch torchvision \
    && pip install -c constraints.txt '.[openvino]' && rm -rf /src
WORKDIR /data
USER 1000:1000
CMD ["wsi-lmc", "--help"]

FROM base AS cuda
# PyPI's torch brings CUDA's libraries; the machine gives the driver (NVIDIA's container toolkit).
ENV NVIDIA_VISIBLE_DEVICES=all NVIDIA_DRIVER_CAPABILITIES=compute,utility
RUN pip install -c constraints.txt . && rm -rf /src
WORKDIR /data
USER 1000:1000
CMD ["wsi-lmc", "--help"]
