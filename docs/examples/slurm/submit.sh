#!/bin/bash
# Submits the whole pipeline, each step after the one before: SLIDES=/data/slides RUN=/data/run bash submit.sh
set -eu
: "${SLIDES:?slides, folders or a manifest}" "${RUN:?the run folder}"
export SLIDES RUN
here=$(cd "$(dirname "$0")" && pwd)
tile=$(sbatch --parsable --export=ALL "$here/tile.sbatch")
train=$(sbatch --parsable --export=ALL --dependency="afterok:$tile" "$here/train.sbatch")
embed=$(sbatch --parsable --export=ALL --dependency="afterok:$train" "$here/embed.sbatch")
echo "tile $tile, train $train, embed $embed; wsi-lmc status $RUN says how far it is"
