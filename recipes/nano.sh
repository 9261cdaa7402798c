#!/usr/bin/env bash
# The bundled weights `nano`, from the stem to the file, in the three runs that made them: the
# second and the third continue with larger batches, with targets that are a part of an object, and
# with more images that are gray, coarse or compressed. Called again, it goes on where it was
# interrupted. Arguments are settings of all runs:
#
#   recipes/nano.sh                            # 8, 6 and 12 minutes on an H200 with 16 CPU cores
#   recipes/nano.sh devices=2 workers=0        # two CPU cores: 9, 6.5 and 18 hours
set -euo pipefail
cd "$(dirname "$0")/.."

# run FOLDER [SETTING...]
run() {
    local resume=()
    [ ! -e "$1/checkpoint.pt" ] || resume=(--resume)
    spmtrack train recipes/nano.yaml "output=$1" "${@:2}" "${resume[@]}"
}

harder=(synthetic.coarse_share=0.25 synthetic.jpeg_share=0.25 synthetic.gray_share=0.2)
[ -e runs/nano_second/checkpoint.pt ] || run runs/nano "$@"
[ -e runs/nano_third/checkpoint.pt ] || run runs/nano_second \
    start_from=runs/nano/weights.safetensors stem=null steps=608 batch_size=256 lr=1.5e-3 \
    decay_steps=442 stem_frozen_steps=486 hard_target_steps=0 \
    videos.part_share=0.15 synthetic.part_share=0.15 "${harder[@]}" "$@"
run runs/nano_third \
    start_from=runs/nano_second/weights.safetensors stem=null seed=3 steps=843 batch_size=512 \
    warmup_steps=60 decay_steps=218 stem_frozen_steps=843 hard_target_steps=0 ema_decay=0.985 \
    videos.part_share=0.2 synthetic.part_share=0.2 "${harder[@]}" "$@"
echo "wrote runs/nano_third/weights.safetensors"
