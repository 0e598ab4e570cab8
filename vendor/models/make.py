"""Makes vendor/models/all-MiniLM-L6-v2/ from the public weights, byte for byte the same each time.

usage: make.py WEIGHTS_FOLDER OUT_FOLDER            (make model)
       make.py WEIGHTS_FOLDER --fixtures FOLDER     (make model-fixtures)

WEIGHTS_FOLDER holds model.safetensors, vocab.txt and tokenizer.json of sentence-transformers/all-MiniLM-L6-v2.

The graph computes in f32. Its weights are 8 bits with one scale for each output column (matrices) or row (word table),
spelt out as Cast and Mul: runtimes that have an operator for it round differently from each other, and stored vectors
would not survive a change of runtime. Inputs: input_ids, attention_mask, int64 [batch, sequence]. Output:
sentence_embedding, float32 [batch, 384], mean over the tokens, L2-normalised.
"""

import hashlib
import json
import math
import random
import sys
from pathlib import Path

import numpy as np

WIDTH, HEADS, LAYERS, TOKENS_MAX = 384, 12, 6, 256
HEAD_WIDTH = WIDTH // HEADS


def symmetric_int8(matrix, axis):
    """Values from -127 to 127 and the scale of each slice along `axis`."""
    others = tuple(index for index in range(matrix.ndim) if index != axis)
    scale = np.abs(matrix).max(axis=others, keepdims=True) / 127
    scale[scale == 0] = 1
    return np.rint(matrix / scale).astype(np.int8), scale.astype(np.float32)


class Graph:
    def __init__(self):
        self.nodes, self.constants, self.count = [], {}, 0

    def constant(self, name, value):
        self.constants.setdefault(name, np.ascontiguousarray(value))
        return name

    def add(self, operator, inputs, outputs=1, output=None, **attributes):
        from onnx import helper

        self.count += 1
        names = [output] if output else [f"{operator}_{self.count}_{index}" for index in range(outputs)]
        self.nodes.append(helper.make_node(operator, inputs, names, name=f"{operator}_{self.count}", **attributes))
        return names[0] if outputs == 1 else names

    def from_int8(self, table, scale, indices=None):
        pick = lambda name: self.add("Gather", [name, indices]) if indices else name
        return self.add("Mul", [self.add("Cast", [pick(table)], to=1), pick(scale)])

    def linear(self, x, name, weight, bias):
        """x [.., in] times weight [in, out]: the scale is per output, so it is applied after the product."""
        values, scale = symmetric_int8(weight, 1)
        product = self.add("MatMul", [x, self.add("Cast", [self.constant(f"{name}.values", values)], to=1)])
        product = self.add("Mul", [product, self.constant(f"{name}.scale", scale.reshape(-1))])
        return self.add("Add", [product, self.constant(f"{name}.bias", bias)])

    def normalise(self, x, name, weights, prefix):
        inputs = [x, self.constant(f"{name}.gain", weights[f"{prefix}.weight"]), self.constant(f"{name}.shift", weights[f"{prefix}.bias"])]
        return self.add("LayerNormalization", inputs, axis=-1, epsilon=1e-12)


def embed(graph, weights):
    values, scale = symmetric_int8(weights["embeddings.word_embeddings.weight"], 0)
    words = graph.from_int8(graph.constant("words.values", values), graph.constant("words.scale", scale), "input_ids")
    positions = weights["embeddings.position_embeddings.weight"] + weights["embeddings.token_type_embeddings.weight"][0]
    length = graph.add("Slice", [graph.add("Shape", ["input_ids"]), graph.constant("one", np.array([1])), graph.constant("two", np.array([2]))])
    first = graph.constant("zero", np.array([0]))
    positions = graph.add("Slice", [graph.constant("positions", positions), first, length, first])
    return graph.normalise(graph.add("Add", [words, positions]), "embedding", weights, "embeddings.LayerNorm")


def layer(graph, x, number, weights, mask):
    prefix = f"encoder.layer.{number}"
    get = lambda part: (weights[f"{prefix}.{part}.weight"].T, weights[f"{prefix}.{part}.bias"])
    (query, query_bias), key, value = get("attention.self.query"), get("attention.self.key"), get("attention.self.value")
    # The scale of the scores goes into the query's weights.
    shrink = np.float32(1 / math.sqrt(HEAD_WIDTH))
    joined = np.concatenate([query * shrink, key[0], value[0]], axis=1)
    bias = np.concatenate([query_bias * shrink, key[1], value[1]])
    parts = graph.constant("parts", np.array([WIDTH] * 3))
    split = graph.add("Split", [graph.linear(x, f"{number}.attention", joined, bias), parts], outputs=3, axis=-1)
    heads = graph.constant("heads", np.array([0, 0, HEADS, HEAD_WIDTH]))
    orders = ([0, 2, 1, 3], [0, 2, 3, 1], [0, 2, 1, 3])
    query, key, value = (graph.add("Transpose", [graph.add("Reshape", [part, heads])], perm=order) for part, order in zip(split, orders))
    scores = graph.add("Softmax", [graph.add("Add", [graph.add("MatMul", [query, key]), mask])], axis=-1)
    seen = graph.add("Transpose", [graph.add("MatMul", [scores, value])], perm=[0, 2, 1, 3])
    seen = graph.add("Reshape", [seen, graph.constant("whole", np.array([0, 0, WIDTH]))])
    x = graph.add("Add", [graph.linear(seen, f"{number}.output", *get("attention.output.dense")), x])
    x = graph.normalise(x, f"{number}.attention", weights, f"{prefix}.attention.output.LayerNorm")
    wide = graph.linear(x, f"{number}.wide", *get("intermediate.dense"))
    error = graph.add("Erf", [graph.add("Div", [wide, graph.constant("sqrt2", np.float32(math.sqrt(2)))])])
    gelu = graph.add("Mul", [graph.add("Mul", [wide, graph.add("Add", [error, graph.constant("1.0", np.float32(1))])]), graph.constant("0.5", np.float32(0.5))])
    x = graph.add("Add", [graph.linear(gelu, f"{number}.narrow", *get("output.dense")), x])
    return graph.normalise(x, f"{number}.feed", weights, f"{prefix}.output.LayerNorm")


def build(weights, path):
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    graph = Graph()
    x = embed(graph, weights)
    attended = graph.add("Cast", ["attention_mask"], to=1)
    hidden = graph.add("Sub", [graph.constant("1.0", np.float32(1)), graph.add("Unsqueeze", [attended, graph.constant("axes", np.array([1, 2]))])])
    mask = graph.add("Mul", [hidden, graph.constant("minus", np.float32(-10000))])
    for number in range(LAYERS):
        x = layer(graph, x, number, weights, mask)
    # The division by the number of tokens cancels in the normalisation.
    total = graph.add("ReduceSum", [graph.add("Mul", [x, graph.add("Unsqueeze", [attended, graph.constant("last", np.array([2]))])]), "one"], keepdims=0)
    length = graph.add("Sqrt", [graph.add("ReduceSum", [graph.add("Mul", [total, total]), "one"], keepdims=1)])
    graph.add("Div", [total, graph.add("Max", [length, graph.constant("tiny", np.float32(1e-12))])], output="sentence_embedding")
    inputs = [helper.make_tensor_value_info(name, TensorProto.INT64, ["batch", "sequence"]) for name in ("input_ids", "attention_mask")]
    outputs = [helper.make_tensor_value_info("sentence_embedding", TensorProto.FLOAT, ["batch", WIDTH])]
    constants = [numpy_helper.from_array(value, name) for name, value in graph.constants.items()]
    model = helper.make_model(
        helper.make_graph(graph.nodes, "all-MiniLM-L6-v2", inputs, outputs, constants),
        opset_imports=[helper.make_opsetid("", 17)],
        producer_name="spacebot",
    )
    model.ir_version = 8
    onnx.checker.check_model(model)
    path.write_bytes(model.SerializeToString(deterministic=True))


def reference(weights, ids):
    """The same in f64 with the original weights, for one text."""
    w = {name: value.astype(np.float64) for name, value in weights.items() if value.dtype == np.float32}
    erf = np.vectorize(math.erf)

    def normalise(x, prefix):
        spread = np.sqrt(x.var(-1, keepdims=True) + 1e-12)
        return (x - x.mean(-1, keepdims=True)) / spread * w[f"{prefix}.weight"] + w[f"{prefix}.bias"]

    def linear(x, prefix):
        return x @ w[f"{prefix}.weight"].T + w[f"{prefix}.bias"]

    count = len(ids)
    x = w["embeddings.word_embeddings.weight"][ids] + w["embeddings.position_embeddings.weight"][:count] + w["embeddings.token_type_embeddings.weight"][0]
    x = normalise(x, "embeddings.LayerNorm")
    for number in range(LAYERS):
        p = f"encoder.layer.{number}"
        split = lambda part: linear(x, f"{p}.attention.self.{part}").reshape(count, HEADS, HEAD_WIDTH).transpose(1, 0, 2)
        query, key, value = split("query"), split("key"), split("value")
        scores = query @ key.transpose(0, 2, 1) / math.sqrt(HEAD_WIDTH)
        scores = np.exp(scores - scores.max(-1, keepdims=True))
        seen = (scores / scores.sum(-1, keepdims=True) @ value).transpose(1, 0, 2).reshape(count, WIDTH)
        x = normalise(x + linear(seen, f"{p}.attention.output.dense"), f"{p}.attention.output.LayerNorm")
        wide = linear(x, f"{p}.intermediate.dense")
        x = normalise(x + linear(0.5 * wide * (1 + erf(wide / math.sqrt(2))), f"{p}.output.dense"), f"{p}.output.LayerNorm")
    mean = x.mean(0)
    return mean / np.linalg.norm(mean)


SUBJECTS = "Una|the plumber|my sister|our landlord|the Raspberry Pi|Ada|the cat|the old boiler|somebody|the backup job|Dr. Müller|the team".split("|")
ACTIONS = "repaired|forgot|bought|looked for|complained about|wrote down|sold|remembered|painted|measured|restarted|asked about".split("|")
OBJECTS = "the kitchen tap|a bicycle|42 litres of paint|the Wi-Fi password|her dentist appointment|a recipe for soup|the garage sensor|error E0382|the garden gate|a concert ticket|the quarterly report|café receipts".split("|")
TIMES = "last Tuesday|in May 2023|at 9:30|before the storm|twice this week|on 2024-01-02|while it rained|every morning|again|for the third time".split("|")


def sentences(count, seed):
    choose = random.Random(seed).choice
    return [f"{choose(SUBJECTS)} {choose(ACTIONS)} {choose(OBJECTS)} {choose(TIMES)}{choose(['.', '?', '!', ''])}" for _ in range(count)]


def fuzzed(count, seed):
    """Texts that are hard on a tokeniser: scripts, accents, signs, control characters, lengths."""
    source = random.Random(seed)
    ranges = [(0x20, 0x7E)] * 6 + [(0xA0, 0x17F), (0x300, 0x36F), (0x370, 0x3FF), (0x400, 0x4FF), (0x5D0, 0x5EA), (0x600, 0x6FF), (0x900, 0x97F), (0xE00, 0xE7F)]
    ranges += [(0x1E00, 0x1EFF), (0x2000, 0x206F), (0x2190, 0x21FF), (0x3000, 0x30FF), (0x4E00, 0x9FFF), (0xAC00, 0xD7A3), (0xFF00, 0xFFEF), (0x1F300, 0x1F64F), (0x0, 0x1F), (0x20000, 0x2A6DF)]
    words = (SUBJECTS + OBJECTS + "ﬁne İstanbul ẞtraße Ǆ don't state-of-the-art #hash @at a/b 1,234.5 …".split())
    texts = []
    while len(texts) < count:
        pieces = []
        for _ in range(source.choice([1, 2, 5, 12, 12, 30])):
            if source.random() < 0.5:
                pieces.append(source.choice(words))
            else:
                low, high = source.choice(ranges)
                pieces.append("".join(chr(source.randint(low, high)) for _ in range(source.randint(1, 8))))
        texts.append(source.choice([" ", "", " ", "\t"]).join(pieces))
    texts[:6] = ["", " ", "a" * 101, "a" * 100, "word " * 300, "\u0000\ufffd"]
    return texts


def write_fixtures(weights, folder, out):
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.no_padding()
    tokenizer.enable_truncation(TOKENS_MAX)
    with open(out / "tokens.jsonl", "w") as file:
        for text in fuzzed(3000, 7):
            file.write(json.dumps([text, tokenizer.encode(text).ids], separators=(",", ":")) + "\n")
    texts = sentences(190, 11) + [" ".join(sentences(30, seed)) for seed in range(10)]
    (out / "golden.json").write_text(json.dumps(texts, indent=0, ensure_ascii=False) + "\n")
    vectors = np.array([reference(weights, tokenizer.encode(text).ids) for text in texts])
    (out / "golden.f32").write_bytes(vectors.astype("<f4").tobytes())


def main():
    from safetensors.numpy import load_file

    folder = Path(sys.argv[1])
    weights = load_file(folder / "model.safetensors")
    if sys.argv[2] == "--fixtures":
        return write_fixtures(weights, folder, Path(sys.argv[3]))
    out = Path(sys.argv[2])
    out.mkdir(parents=True, exist_ok=True)
    build(weights, out / "model.onnx")
    (out / "vocab.txt").write_bytes((folder / "vocab.txt").read_bytes())
    sums = [f"{hashlib.sha256((out / name).read_bytes()).hexdigest()}  {name}\n" for name in ("model.onnx", "vocab.txt")]
    (out / "SHA256SUMS").write_text("".join(sums))


main()
