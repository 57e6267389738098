"""A tiny retrieval data set as a BEIR folder, and settings that train on it in a second."""

import json

VERBS = ("open", "close", "read", "write", "sort", "merge", "split", "count")
THINGS = ("file", "socket", "table", "image", "string", "folder")
# Small and quick: 5 steps a round.
SMALL = (
    "encoder.dim=16",
    "encoder.vocab_size=200",
    "training.batch_size=16",
    "training.rounds=2",
    "training.num_negatives=2",
    "training.health_every=100",
    "mining.num_negatives=2",
)


def write_tiny(folder):
    """48 passages on one verb and one thing each, two queries a passage: train, dev and test."""
    (folder / "qrels").mkdir(parents=True)
    passages, queries = [], []
    qrels = {"train": [], "dev": [], "test": []}
    for verb in VERBS:
        for thing in THINGS:
            name = f"{verb}-{thing}"
            text = f"def {verb}_{thing}(path): return library.{verb}({thing}, path)"
            passages.append({"_id": name, "title": f"{verb} {thing}", "text": text})
            for number, words in enumerate((f"how do I {verb} a {thing}", f"{thing}: please {verb} it")):
                split = "train" if number == 0 or len(passages) % 3 else ("dev", "test")[len(passages) % 2]
                queries.append({"_id": f"q{len(queries)}", "text": words})
                qrels[split].append((queries[-1]["_id"], name))
    for file, rows in (("corpus", passages), ("queries", queries)):
        (folder / f"{file}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    for split, pairs in qrels.items():
        lines = ["query-id\tcorpus-id\tscore", *(f"{query}\t{passage}\t1" for query, passage in pairs)]
        (folder / "qrels" / f"{split}.tsv").write_text("\n".join(lines) + "\n")
    return folder
