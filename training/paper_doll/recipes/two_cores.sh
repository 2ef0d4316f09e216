#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-3.0-or-later
# How the files in demo/ were made: on two cores of a CPU, in some twelve hours. It needs `anydressing` on the PATH, writes into
# the folder that is named (runs/paper_doll) and leaves the finished files in its demo/. Given again, it goes on where it was
# stopped. Where the files' own story differs is said in docs/evidence/README.md.
set -euo pipefail
mkdir -p "${1:-runs/paper_doll}/demo/anydressing"
cd "${1:-runs/paper_doll}"
export OMP_NUM_THREADS=1 # two processes of one thread are faster than one of two
one=(anydressing)
both=(torchrun --nproc_per_node 2 "$(command -v anydressing)") # each a device, with a batch of its own

# run NAME PRESET DATA COMMAND [SETTING ...]: begin a run in the folder NAME, or go on with it.
run() {
    local name=$1 preset=$2 data=$3 resume=()
    shift 3
    printf 'preset = "%s"\nfolder = "%s"\n\n[data]\nmanifest = "%s/manifest.jsonl"\n' "$preset" "$name" "$data" > "$name.toml"
    if [ -d "$name" ]; then resume=(--resume); fi
    "${@/CONFIG/$name.toml}" "${resume[@]}"
}

anydressing data paper-doll dolls --count 6000 --size 384x288 --workers 2
anydressing data paper-doll dolls --count 500 --size 384x288 --workers 2 --split held_out
anydressing data paper-doll hatted --count 6000 --size 384x288 --workers 2 --seed 100000 --hats 0.6

# What looks at pictures: inside L_perc, and as the judge.
run recogniser_loss recogniser-loss dolls "${one[@]}" train-base CONFIG
anydressing export-base recogniser_loss demo/paper_doll_recogniser_loss.safetensors
run recogniser_judge recogniser-judge dolls "${one[@]}" train-base CONFIG
anydressing export-base recogniser_judge demo/paper_doll_recogniser_judge.safetensors

# The base model. Its autoencoder's export begins a U-Net, which is trained, and tuned with noise whose mean strays.
run autoencoder autoencoder-cpu dolls "${one[@]}" train-base CONFIG
anydressing export-base autoencoder begun.safetensors
run base base-cpu dolls "${both[@]}" train-base CONFIG --set base.checkpoint=begun.safetensors --set data.batch=8 \
    --set noise_offset=0
anydressing export-base base untuned.safetensors
run tuned base-cpu dolls "${both[@]}" train-base CONFIG --set base.checkpoint=untuned.safetensors --set data.batch=8 \
    --set steps=2400 --set optimizer.learning_rate=3e-4 --set optimizer.warmup=100 --set optimizer.average=0.998
anydressing export-base tuned demo/paper_doll_base.safetensors
run parser parser hatted "${one[@]}" train-base CONFIG --set base.checkpoint=demo/paper_doll_base.safetensors
anydressing export-base parser demo/paper_doll_parser.safetensors

# The AnyDressing file: upper and lower; a hat by the paper's Section 8; all together, with the paper's lambda2 at first.
ours=(--set losses.feature_network=demo/paper_doll_recogniser_loss.safetensors --set 'adapter.title="Paper doll"'
    --set 'adapter.author="The ComfyUI-AnyDressing authors"')
all=(--slots "upper,lower,hat" "${ours[@]}")
run two paper-doll-cpu dolls "${both[@]}" train CONFIG "${ours[@]}" --set base.checkpoint=untuned.safetensors \
    --set losses.texture=0.001
anydressing export two two.safetensors
run hat paper-doll-cpu dolls "${one[@]}" train CONFIG "${all[@]}" --set base.checkpoint=untuned.safetensors \
    --set losses.texture=0.001 --init two.safetensors --set steps=2000 --set data.batch=8 --set optimizer.learning_rate=2e-3
anydressing export hat demo/paper_doll_section8.safetensors
run whole paper-doll-cpu dolls "${both[@]}" train CONFIG "${all[@]}" --set base.checkpoint=untuned.safetensors \
    --set losses.texture=0.001 --init demo/paper_doll_section8.safetensors --set steps=2800
anydressing export whole whole.safetensors
run whole_tuned paper-doll-cpu dolls "${both[@]}" train CONFIG "${all[@]}" --set base.checkpoint=demo/paper_doll_base.safetensors \
    --set losses.texture=0.001 --init whole.safetensors --set steps=2800
anydressing export whole_tuned whole_tuned.safetensors
run texture paper-doll-cpu dolls "${one[@]}" train CONFIG "${all[@]}" --set base.checkpoint=demo/paper_doll_base.safetensors \
    --init whole_tuned.safetensors --set steps=1000 --set data.batch=8
anydressing export texture demo/anydressing/paper_doll.safetensors
