#!/bin/bash
# Ablations by training: the recipe without one part each, or in another size, all with the same
# small budget: 19,200 tracks, about 50 minutes on two free CPU cores. Runs that have ended are
# skipped, interrupted ones resumed.
#
#     benchmarks/train_ablations.sh OUTPUT [key=value ...]
#
# AT_ONCE=13 trains so many side by side, which a GPU has room for; SPMTRACK is the command,
# spmtrack by default. The last row of each log.csv has the validation on held-out clips. The seeds
# of the whole recipe show the spread. Weights trained without references or without the state
# token are judged by benchmarks/ablation.py, which tracks without them as well.
set -euo pipefail
output=$1
shift
settings=("$@")
runs=()
recipe=recipes/nano.yaml
budget=(steps=300 batch_size=64 warmup_steps=40 hard_target_steps=80 stem_frozen_steps=300
    ema_decay=0.98 validation_every=300 tracker.recovery=none videos.part_share=0.15
    synthetic.part_share=0.15 synthetic.coarse_share=0.25 synthetic.jpeg_share=0.25
    synthetic.gray_share=0.2)

# train NAME [key=value ...]: a run of its own, with its messages in OUTPUT/NAME.txt
train() {
    local name=$1 resume=()
    shift
    while [ "$(jobs -rp | wc -l)" -ge "${AT_ONCE:-1}" ]; do sleep 1; done
    if [ -e "$output/$name/checkpoint.pt" ]; then resume=(--resume); fi
    echo "$name"
    "${SPMTRACK:-spmtrack}" train "$recipe" "${budget[@]}" "output=$output/$name" \
        "${settings[@]}" "$@" "${resume[@]}" > "$output/$name.txt" 2>&1 &
    runs+=($!)
}

mkdir -p "$output"
train whole
train whole_seed_2 seed=2
train whole_seed_3 seed=3
train one_expert model.experts=1
train no_references without=[references]
train no_state_token without=[state_token]
train random_stem stem=null stem_frozen_steps=0 stem_lr_factor=1.0
train no_real_clips data=synthetic
train no_parts videos.part_share=0 synthetic.part_share=0
train joint_references model.separate_references=false
train depth_6 model.depth=6
train larger_crops model.template_hw=[112,112] model.search_hw=[240,240]
train small model.embed_dim=192 model.depth=6 model.num_heads=6 model.mlp_hidden=768 \
    model.template_hw=[112,112] model.search_hw=[240,240]
failed=0
for run in "${runs[@]}"; do wait "$run" || failed=1; done
if [ $failed -ne 0 ]; then
    echo "a run failed: see $output/*.txt; the same command goes on with the others" >&2
    exit 1
fi

head -1 "$output/whole/log.csv" | cut -d, -f 1,5-8,13-
for folder in "$output"/*/; do
    echo "$(tail -1 "$folder/log.csv" | cut -d, -f 1,5-8,13-) $(basename "$folder")"
done
