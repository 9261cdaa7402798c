#!/bin/bash
# Ablations by training: the recipe without one part each, all with the same small budget, about
# half an hour on two free CPU cores. Runs that have ended are skipped, interrupted ones resumed.
#
#     benchmarks/train_ablations.sh OUTPUT [key=value ...]
#
# The last row of each log.csv has the validation on held-out clips. Two seeds of the whole recipe
# show the spread. Weights trained without references or without the state token are judged by
# benchmarks/ablation.py, which tracks without them as well.
set -euo pipefail
output=$1
shift
recipe=recipes/nano.yaml
budget=(steps=1500 batch_size=8 lr=1.5e-3 decay_steps=750 stem_frozen_steps=1500 validation_every=1500)

run() {
    local name=$1
    shift
    local resume=()
    if [ -e "$output/$name/checkpoint.pt" ]; then resume=(--resume); fi
    spmtrack train "$recipe" "${budget[@]}" "output=$output/$name" "$@" "${resume[@]}"
}

run whole "$@"
run whole_seed_2 seed=2 "$@"
run one_expert model.experts=1 "$@"
run no_references without=[references] "$@"
run no_state_token without=[state_token] "$@"
run random_stem stem=null stem_frozen_steps=0 "$@"
run no_real_clips data=synthetic "$@"
run joint_references model.separate_references=false "$@"

for folder in "$output"/*/; do
    echo "$folder"
    head -1 "$folder/log.csv" | cut -d, -f 1,13-
    tail -1 "$folder/log.csv" | cut -d, -f 1,13-
done
