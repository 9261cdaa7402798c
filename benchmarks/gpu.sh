#!/usr/bin/env bash
# What needs a GPU, in one command of 13 minutes: tests, speed, training.
#
#   benchmarks/gpu.sh OUT [tests|speed|train ...]      # all three parts, in this order
#   DEVICE=cpu TRAIN="batch_size=4 steps=4" TRAIN_S=60 benchmarks/gpu.sh OUT   # a rehearsal
#
# Each part has a limit of seconds and writes into OUT while it runs: an interruption keeps what is
# there. The next call with the same RUN continues the training. At its limit a part is interrupted,
# so that it says where it was, and is killed 10 seconds later. With the defaults below the script
# ends after at most 120 + 160 + 500 + 3 * 10 = 810 seconds and the copying of RUN, which takes a
# few; give a machine lent for 900 seconds the rest to start.
#
# OUT gets few files, because some machines return eight of at most 16 MiB: log.txt, which has the
# output of all parts; speed.json and speed.png; log.csv and weights.safetensors of the training,
# copied while it runs; run.tar.aa and so on, which is RUN (cat run.tar.* | tar -x).
#
# Variables and their defaults:
#
#   PYTHON   python3                 needs the extras train, demo and test, and pytest
#   DEVICE   cuda
#   TESTS_S  120    SPEED_S  160    TRAIN_S  500
#   MODELS   nano spmtrack_b spmtrack_l spmtrack_g
#   PRECISION                        of the table of speeds; default: bfloat16 and float16
#   LINE_S   0.6                     seconds on each line of the table of speeds
#   RECIPE   recipes/nano.yaml       its data folders must exist
#   TRAIN                            settings of the training, key=value
#   RUN      runs/gpu                folder of the training
#   KEEP_S   60                      seconds between copies of the weights to OUT
set -u
[ $# -ge 1 ] || { sed -n '2,/^set/{/^set/d;s/^# \{0,1\}//;p}' "$0"; exit 2; }
out=$(mkdir -p "$1" && cd "$1" && pwd) || exit 2
shift
cd "$(dirname "$0")/.." || exit 2
python=${PYTHON:-python3} device=${DEVICE:-cuda} run=${RUN:-runs/gpu}
export PYTHONPATH="$PWD:$PWD/benchmarks${PYTHONPATH:+:$PYTHONPATH}" PYTHONUNBUFFERED=1
failed=0

# limited NAME SECONDS COMMAND...: run a part, with its output in OUT/log.txt as well
limited() {
    local name=$1 seconds=$2 began=$SECONDS
    shift 2
    # as Ctrl-C, which pytest answers with its report
    timeout -s INT -k 10 "$seconds" "$@" 2>&1 | tee -a "$out/log.txt"
    local status=${PIPESTATUS[0]}
    echo "$name: exit status $status after $((SECONDS - began)) s" | tee -a "$out/log.txt"
    [ "$status" -eq 0 ] || failed=1
}

tests() {
    limited tests "${TESTS_S:-120}" "$python" -m pytest -q -m gpu -p no:cacheprovider --durations 10 \
        $(grep -rl "mark.gpu" test --include="test_*.py")
}

speed() {
    local models=() precision
    for precision in ${PRECISION:-}; do
        models+=(--precision "$precision")
    done
    for model in ${MODELS:-nano spmtrack_b spmtrack_l spmtrack_g}; do
        models+=(--model "$model")
    done
    limited speed "${SPEED_S:-160}" "$python" benchmarks/layouts.py "${models[@]}" \
        --device "$device" --batch 1 --batch 8 --seconds "${LINE_S:-0.6}" -o "$out/speed.json"
}

# keep: the newest log and weights of the training into OUT, where no file is ever half written
keep() {
    local name
    for name in log.csv weights.safetensors; do
        cp "$run/$name" "$out/.$name.part" && mv "$out/.$name.part" "$out/$name"
    done 2>/dev/null
}

train() {
    local resume=() seconds=${TRAIN_S:-500}
    [ -e "$run/checkpoint.pt" ] && resume=(--resume)
    # ends with the script; its sleep outlives it, and must not hold whatever reads the output
    while sleep "${KEEP_S:-60}" && kill -0 $$; do keep; done >/dev/null 2>&1 &
    local keeper=$!
    # the process ends itself with a checkpoint; half a minute before the limit
    # shellcheck disable=SC2086  # TRAIN is several words
    limited train "$seconds" "$python" -c 'from spmtrack_core.cli import main; main()' train "${RECIPE:-recipes/nano.yaml}" \
        "${resume[@]}" --time-limit "$(awk "BEGIN {print ($seconds - 30) / 60}")" \
        output="$run" device="$device" ${TRAIN:-}
    kill "$keeper" 2>/dev/null
    wait "$keeper" 2>/dev/null
    keep
    rm -f "$out"/run.tar.*
    [ ! -d "$run" ] || tar -cf - -C "$run" . | split -b 15m - "$out/run.tar."
}

for part in "${@:-tests}" $([ $# -eq 0 ] && echo speed train); do
    case $part in
        tests | speed | train) "$part" ;;
        *) echo "unknown part $part; expected tests, speed or train" >&2 && exit 2 ;;
    esac
done
exit $failed
