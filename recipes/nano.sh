#!/usr/bin/env bash
# The bundled weights `nano`, from the stem to the file, in the two runs that made them: the second
# continues with larger batches and with targets that are a part of an object. Called again, it goes
# on where it was interrupted. Arguments are settings of both runs:
#
#   recipes/nano.sh                            # 8.1 and 6.1 minutes on an H200 with 16 CPU cores
#   recipes/nano.sh devices=2 workers=0        # two CPU cores: nine and six and a half hours
set -euo pipefail
cd "$(dirname "$0")/.."

# run FOLDER [SETTING...]
run() {
    local resume=()
    [ ! -e "$1/checkpoint.pt" ] || resume=(--resume)
    spmtrack train recipes/nano.yaml "output=$1" "${@:2}" "${resume[@]}"
}

[ -e runs/nano_second/checkpoint.pt ] || run runs/nano "$@"
run runs/nano_second \
    start_from=runs/nano/weights.safetensors stem=null steps=608 batch_size=256 lr=1.5e-3 \
    decay_steps=442 stem_frozen_steps=486 hard_target_steps=0 \
    videos.part_share=0.15 synthetic.part_share=0.15 \
    synthetic.coarse_share=0.25 synthetic.jpeg_share=0.25 synthetic.gray_share=0.2 "$@"
echo "wrote runs/nano_second/weights.safetensors"
