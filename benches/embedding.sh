#!/usr/bin/env bash
# `make bench-embedding`: CPU milliseconds of one sentence vector by length, with onnxruntime and with the built-in
# runtime: the difference between many questions and half as many, asked of a store with one memory.
set -euo pipefail
binary=$(realpath "${BINARY:-target/release/spacebot}")
root=$(realpath "$(dirname "$0")/..")
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
onnxruntime="$root/vendor/onnxruntime/$(uname -m)/libonnxruntime.so"
words=(time year people way day man thing woman life child world school state family student group country problem hand
    part place case week company system program question work government number night point home water room mother
    area money story fact month lot right study book eye job word business issue side kind head house service friend)
count=100

# $1 questions of $2 tokens: two are the marks at both ends.
questions() {
    local number line
    RANDOM=7
    for ((number = 0; number < $1; number++)); do
        line=""
        for ((word = 2; word < $2; word++)); do line+="${words[RANDOM % ${#words[@]}]} "; done
        echo "{\"id\":$number,\"query\":\"$line\"}"
    done
}

# CPU seconds of $1 questions of $2 tokens.
cpu() {
    questions "$1" "$2" >"$work/questions"
    local TIMEFORMAT="%U %S" times
    times=$({ time "$binary" memory search --queries "$work/questions" --json --parts meaning >"$work/out" 2>"$work/log"; } 2>&1)
    [ "$(wc -l <"$work/out")" = "$1" ] || { cat "$work/log" >&2; exit 1; }
    awk '{ print $1 + $2 }' <<<"$times"
}

export SPACEBOT_DIR="$work/data"
mkdir -p "$SPACEBOT_DIR"
echo '{"content":"the key hangs by the door"}' >"$work/one.jsonl"
echo "| runtime | 8 tokens, ms | 32 | 128 |"
echo "|---|---|---|---|"
for runtime in onnxruntime built-in; do
    library=$onnxruntime
    [ "$runtime" = onnxruntime ] || library=/nowhere
    if [ "$runtime" = onnxruntime ] && [ ! -f "$library" ]; then
        echo "| onnxruntime | not there: make onnxruntime | | |"
        continue
    fi
    printf '[memory.embedding]\nmodel = "%s"\nonnxruntime = "%s"\n' "$root/vendor/models/all-MiniLM-L6-v2" "$library" >"$SPACEBOT_DIR/config.toml"
    "$binary" memory import "$work/one.jsonl" >/dev/null 2>&1
    line="| $runtime"
    for tokens in 8 32 128; do
        half=$(cpu $((count / 2)) "$tokens")
        whole=$(cpu "$count" "$tokens")
        line+=" | $(awk "BEGIN { printf \"%.1f\", ($whole - $half) / ($count / 2) * 1000 }")"
    done
    echo "$line |"
done
