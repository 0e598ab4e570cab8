#!/usr/bin/env bash
# `make bench-memory`: what the search finds of the LoCoMo conversations. LOCOMO is a folder with
# N.memories.jsonl, N.questions.jsonl and score.py; nothing of it belongs to this repository.
set -euo pipefail
binary=${BINARY:-target/release/spacebot}
folder=${LOCOMO:-../shared/data/locomo}
if [ ! -f "$folder/score.py" ]; then
    echo "not run: no LoCoMo data in $folder (set LOCOMO)"
    exit 0
fi
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
# For each conversation a store of its own.
for memories in "$folder"/*.memories.jsonl; do
    name=$(basename "$memories" .memories.jsonl)
    SPACEBOT_DIR="$work/$name" "$binary" memory import "$memories" >/dev/null
done
if [ -n "${VARIANTS:-}" ]; then
    read -ra variants <<<"$VARIANTS"
else
    variants=(words meaning words,meaning,by_rank words,meaning words,meaning,locality words,meaning,locality,second_pass
        words,meaning,locality,second_pass,dates all)
fi
for variant in "${variants[@]}"; do
    parts=()
    [ "$variant" = all ] || parts=(--parts "$variant")
    : >"$work/hits"
    for questions in "$folder"/*.questions.jsonl; do
        name=$(basename "$questions" .questions.jsonl)
        SPACEBOT_DIR="$work/$name" "$binary" memory search --queries "$questions" --json --limit 20 "${parts[@]}" >>"$work/hits"
    done
    echo "== $variant"
    python3 "$folder/score.py" "$work/hits" "$folder"/*.questions.jsonl
done
