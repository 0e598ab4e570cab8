#!/usr/bin/env bash
# `make bench-lancedb`: our store and LanceDB's on the same texts and vectors, one after the other, each measured in a
# process of its own.
set -euo pipefail
python="$TARGET/lancedb/bin/python"
if [ ! -x "$python" ]; then
    python3 -m venv "$TARGET/lancedb"
    "$TARGET/lancedb/bin/pip" install -q lancedb==0.40.0 numpy pyarrow pandas
fi
[ -n "${BENCH:-}" ] || BENCH=$(cargo bench --no-run --bench memories 2>&1 | sed -n 's/.*(\(.*\))$/\1/p' | tail -1)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
for size in $SIZES; do
    "$BENCH" make "$work/$size" "$size"
    echo "== $size memories"
    echo "| store | hybrid query p50 / p99, CPU ms | recall@10 of the vectors | one save p50 / p99, ms | memory, MiB | start to first query, ms | on disk, MiB |"
    echo "|---|---|---|---|---|---|---|"
    "$BENCH" measure "$work/$size"
    for kind in flat tuned; do
        "$python" benches/lancedb_peer.py make "$work/$size" "$kind" >/dev/null
        "$python" benches/lancedb_peer.py measure "$work/$size" "$kind"
    done
    rm -rf "${work:?}/$size"
done
