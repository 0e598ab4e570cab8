"""LanceDB on the texts and vectors that `memories make FOLDER` wrote: hybrid queries by rank, one save, memory, disk.

`lancedb_peer.py make FOLDER flat|tuned` builds the table, `lancedb_peer.py measure FOLDER flat|tuned` measures it in
a process of its own. The embedding of the query is in neither side's figure."""

import os
import shutil
import sys
import time

import lancedb
import numpy
import pyarrow
from lancedb.rerankers import RRFReranker

DIMENSIONS = 384
LIMIT = 10


def lines(folder, name):
    with open(os.path.join(folder, name)) as file:
        return file.read().split("\n")


def vectors(folder, name):
    return numpy.fromfile(os.path.join(folder, name), dtype="<f4").reshape(-1, DIMENSIONS)


def place(folder, kind):
    return os.path.join(folder, "lancedb-" + kind)


def make(folder, kind):
    shutil.rmtree(place(folder, kind), ignore_errors=True)
    texts, rows = lines(folder, "texts"), vectors(folder, "vectors.f32")
    data = pyarrow.table({
        "id": pyarrow.array([str(number) for number in range(len(texts))]),
        "content": pyarrow.array(texts),
        "vector": pyarrow.FixedSizeListArray.from_arrays(pyarrow.array(rows.ravel()), DIMENSIONS),
    })
    table = lancedb.connect(place(folder, kind)).create_table("memories", data)
    table.create_fts_index("content", replace=True)
    if kind == "tuned":
        table.create_index(metric="cosine", vector_column_name="vector", index_type="IVF_HNSW_SQ", num_partitions=1)
    table.optimize()


def resident():
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) / 1024 for line in file if line.startswith("VmRSS"))


def disk(folder):
    return sum(os.path.getsize(os.path.join(path, name)) for path, _, names in os.walk(folder) for name in names) / 2**20


def measure(folder, kind):
    queries, asked = lines(folder, "queries"), vectors(folder, "queries.f32")
    truth_rows = vectors(folder, "vectors.f32")
    truth = [set(numpy.argsort(-(truth_rows @ asked[number]))[:LIMIT].tolist()) for number in range(len(queries))]
    del truth_rows
    empty, started = resident(), time.perf_counter()
    table = lancedb.connect(place(folder, kind)).open_table("memories")
    reranker = RRFReranker()

    def ask(number):
        query = table.search(query_type="hybrid").vector(asked[number]).text(queries[number]).distance_type("cosine")
        if kind == "tuned":
            query = query.ef(200).refine_factor(4)
        return query.rerank(reranker).limit(LIMIT).to_list()

    ask(0)
    first = (time.perf_counter() - started) * 1e3
    cpu = []
    for _ in range(3):
        for number in range(len(queries)):
            begun = time.process_time()
            assert ask(number)
            cpu.append((time.process_time() - begun) * 1e3)
    memory, size = resident() - empty, disk(place(folder, kind))
    right = 0
    for number in range(len(queries)):
        near = table.search(asked[number], vector_column_name="vector").distance_type("cosine")
        if kind == "tuned":
            near = near.ef(200).refine_factor(4)
        right += len(truth[number] & {int(row["id"]) for row in near.limit(LIMIT).to_list()})
    saves = []
    for number in range(50):
        row = [{"id": f"new{number}", "content": "one more", "vector": asked[number].tolist()}]
        begun = time.perf_counter()
        table.add(row)
        saves.append((time.perf_counter() - begun) * 1e3)
    half, most = numpy.percentile(cpu, [50, 99])
    save, slow = numpy.percentile(saves, [50, 99])
    recall = right / (LIMIT * len(queries))
    print(f"| lancedb {lancedb.__version__}, {kind} | {half:.2f} / {most:.2f} | {recall:.3f} | {save:.2f} / {slow:.2f} | {memory:.1f} | {first:.0f} | {size:.0f} |")


if __name__ == "__main__":
    {"make": make, "measure": measure}[sys.argv[1]](sys.argv[2], sys.argv[3])
