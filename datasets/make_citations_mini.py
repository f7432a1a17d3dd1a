"""Makes citations-mini: a graph like a citation network, with bags of words as its features.

    python datasets/make_citations_mini.py [--check]

Every paper has one of five topics. Papers cite mostly within their topic, some far more often cited than others (a
degree-corrected stochastic block model). A paper's words come from a common stock with Zipf's frequencies and, a few,
from its topic's own, so that one paper alone says little about its topic and its neighbours say more. ``--check``
prints what logistic regression makes of the words alone, and of the words averaged over two hops.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
import scipy.sparse as sp

OUT = Path(__file__).parent.parent / "graphssl" / "data" / "files" / "citations-mini.npz"
SEED = 2024
SHARES = (0.28, 0.22, 0.20, 0.17, 0.13)  # of the topics
NODES, WORDS, TOPIC_WORDS = 800, 500, 70
MEAN_DEGREE, HOMOPHILY = 3.6, 0.78
LENGTH, FROM_TOPIC = 12, 0.26  # words of a paper, and the share that its topic gives
TRAIN, VAL, TEST = 20, 200, 500  # TRAIN of each topic


def citations(rng: np.random.Generator, topic: np.ndarray) -> np.ndarray:
    """Pairs of papers [E, 2], each once."""
    fame = rng.pareto(2.5, NODES) + 0.5  # how often a paper is cited, relative to others
    pairs: set[tuple[int, int]] = set()
    members = [np.flatnonzero(topic == t) for t in range(len(SHARES))]
    weights = [fame[m] / fame[m].sum() for m in members]
    everyone = fame / fame.sum()
    while len(pairs) < NODES * MEAN_DEGREE / 2:
        u = rng.choice(NODES, p=everyone)
        near = topic[u] if rng.random() < HOMOPHILY else rng.choice(np.delete(np.arange(len(SHARES)), topic[u]))
        v = rng.choice(members[near], p=weights[near])
        if u != v:
            pairs.add((int(min(u, v)), int(max(u, v))))
    return np.array(sorted(pairs))


def words(rng: np.random.Generator, topic: np.ndarray) -> sp.csr_matrix:
    """Which words each paper holds, [NODES, WORDS], zeros and ones."""
    zipf = 1 / np.arange(1, WORDS + 1)
    common = rng.permutation(zipf / zipf.sum())
    own = []
    for _ in SHARES:
        chosen = np.zeros(WORDS)
        chosen[rng.choice(WORDS, TOPIC_WORDS, replace=False)] = rng.dirichlet(np.ones(TOPIC_WORDS))
        own.append(chosen)
    bags = []
    for t in topic:
        mixture = FROM_TOPIC * own[t] + (1 - FROM_TOPIC) * common
        count = max(3, rng.poisson(LENGTH))
        bags.append(np.bincount(rng.choice(WORDS, count, p=mixture), minlength=WORDS) > 0)
    return sp.csr_matrix(np.array(bags), dtype=np.uint8)


def make() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(SEED)
    topic = rng.permutation(np.repeat(np.arange(len(SHARES)), np.round(np.array(SHARES) * NODES).astype(int)))
    pairs, bags = citations(rng, topic), words(rng, topic)
    edges = np.concatenate([pairs, pairs[:, ::-1]])
    edges = edges[np.lexsort((edges[:, 1], edges[:, 0]))].T
    order = rng.permutation(NODES)
    train = np.concatenate([order[topic[order] == t][:TRAIN] for t in range(len(SHARES))])
    rest = order[~np.isin(order, train)]
    meta = {"name": "citations-mini", "made_by": "datasets/make_citations_mini.py", "seed": SEED}
    return {
        "edge_index": edges.astype(np.int32), "y": topic.astype(np.int16),
        "x_indptr": bags.indptr.astype(np.int32), "x_indices": bags.indices.astype(np.int16),
        "x_values": bags.data, "x_shape": np.array(bags.shape, np.int32),
        "train_idx": np.sort(train).astype(np.int32), "val_idx": np.sort(rest[:VAL]).astype(np.int32),
        "test_idx": np.sort(rest[VAL : VAL + TEST]).astype(np.int32), "meta": np.array(json.dumps(meta)),
    }  # fmt: skip


def check(arrays: dict[str, np.ndarray]) -> None:
    from sklearn.linear_model import LogisticRegression

    parts = (arrays["x_values"].astype(float), arrays["x_indices"], arrays["x_indptr"])
    x = sp.csr_matrix(parts, shape=tuple(arrays["x_shape"])).toarray()
    x = x / x.sum(1, keepdims=True).clip(min=1)
    y, (u, v) = arrays["y"], arrays["edge_index"]
    a = sp.csr_matrix((np.ones(u.size), (u, v)), shape=(NODES, NODES)) + sp.identity(NODES)
    scale = sp.diags(np.asarray(a.sum(1)).ravel() ** -0.5)
    a = scale @ a @ scale
    length = arrays["x_values"].size / NODES
    print(f"edges {u.size // 2}, homophily {(y[u] == y[v]).mean():.3f}, words a paper {length:.1f}")
    for label, features in (("raw", x), ("2-hop", a @ (a @ x))):
        best = (0.0, 0.0)
        for c in (1, 10, 100, 1000):
            model = LogisticRegression(C=c, max_iter=2000).fit(features[arrays["train_idx"]], y[arrays["train_idx"]])
            val, test = (
                model.score(features[arrays[f"{part}_idx"]], y[arrays[f"{part}_idx"]]) for part in ("val", "test")
            )
            best = max(best, (val, test), key=lambda pair: pair[0])
        print(f"{label}: test accuracy {100 * best[1]:.1f} at the C that validation prefers ({100 * best[0]:.1f})")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="print what simple baselines reach")
    arrays = make()
    np.savez_compressed(OUT, **arrays)
    print(f"{OUT.name}: {OUT.stat().st_size} bytes")
    if parser.parse_args().check:
        check(arrays)


if __name__ == "__main__":
    main()
