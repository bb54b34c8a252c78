"""Config, battery and data files in the study's format, written anew. Not tests.

The data are rows of this project's own corpora, by field and split as the study's files have them.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tinyablation.corpora.examples import load_corpus, load_split

ROOT = Path(__file__).parent.parent
EMBEDDED = {"facts": "facts", "neg": "negation", "cf": "counterfactual", "logic": "logic"}
IDS = {
    "facts": "facts_single_token_v1",
    "neg": "negation_single_token_v1",
    "cf": "counterfactual_single_token_v1",
    "logic": "logical_single_token_v1",
}


def embedded_rows(condition: str, counts: tuple[int, int]) -> tuple[list[dict], list[dict]]:
    """The first so many rows of either half of an embedded corpus, in the study's four fields."""
    own = ROOT / "corpora" / "tiny"
    corpus = load_corpus(own / f"{condition}.jsonl")
    split = load_split(own / f"{condition}.split.json", corpus)
    fields = ("clean", "corrupt", "target", "foil")
    halves = []
    for half, count in zip(("discovery", "confirmation"), counts, strict=True):
        rows = [corpus.examples[row] for row in split.rows[half][:count]]
        halves.append([{name: getattr(row, name) for name in fields} for row in rows])
    return halves[0], halves[1]


def put_data(
    root: Path,
    dataset: str,
    train: Sequence[Mapping[str, Any]],
    test: Sequence[Mapping[str, Any]],
    val: Sequence[Mapping[str, Any]] = (),
    *,
    crlf: bool = False,
    data_hash: str | None = None,
) -> Path:
    """Write the files of a dataset; crlf: its hash is of the text with CRLF line ends."""
    rows = [*train, *val, *test]
    text = "".join(f"{json.dumps(row, ensure_ascii=False)}\n" for row in rows)
    corpus = root / "lab" / "data" / "corpora" / f"{dataset}.jsonl"
    corpus.parent.mkdir(parents=True, exist_ok=True)
    corpus.write_bytes(text.encode())
    hashed = text.replace("\n", "\r\n") if crlf else text
    ends = [0, len(train), len(train) + len(val), len(rows)]
    split = {
        "seed": 13,
        "data_hash": data_hash or hashlib.sha256(hashed.encode()).hexdigest(),
        **{
            name: list(range(start, end))
            for name, start, end in zip(("train", "val", "test"), ends, ends[1:], strict=False)
        },
    }
    path = root / "lab" / "data" / "splits" / f"{dataset}.split.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(split))
    return corpus


def put_embedded(root: Path, counts: tuple[int, int] = (8, 4)) -> None:
    """Write the embedded rows of all four conditions."""
    for tag, condition in EMBEDDED.items():
        put_data(root, IDS[tag], *embedded_rows(condition, counts))


def put_json(path: Path, content: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=2))
    return path


def settings(**changed: Any) -> dict[str, Any]:
    """The keys of a single config, apart from its name and battery."""
    return {
        "seeds": [0, 1, 2],
        "device": "cpu",
        "model": {"family": "gpt2", "name": "tiny-gpt2", "dtype": "float32"},
        "dataset": {
            "id": IDS["facts"],
            "split": "train",
            "clean_field": "clean",
            "corrupt_field": "corrupt",
            "target_field": "target",
            "foil_field": "foil",
        },
        "metrics": ["logit_diff", "acc_flip_rate", "p_drop", "kl_div"],
        "batch_size": 8,
        "max_seq_len": 64,
        **changed,
    }


def put_config(
    root: Path,
    name: str,
    battery: Mapping[str, Any],
    *,
    conditions: Sequence[Mapping[str, Any]] = (),
    **changed: Any,
) -> Path:
    """Write a battery and a config that names it: single, or cross-condition with `conditions`."""
    where = f"lab/configs/battery_{name}.json"
    put_json(root / where, battery)
    top: dict[str, Any] = {"run_name": name, "battery": where}
    if conditions:
        top |= {"shared": settings(**changed), "conditions": list(conditions)}
    else:
        top |= settings(**changed)
    return put_json(root / "lab" / "configs" / f"run_{name}.json", top)


HEADS = {"type": "heads_zero", "layers": "all", "scales": [0.0], "positions": "all"}
FIRST_LAYER = {**HEADS, "layers": [0]}
PAIRS = {"type": "heads_pair_zero", "layers": [0], "scales": [0.0]}
TRIPLET = {
    "type": "heads_subset_zero",
    "groups": [{"layer": 0, "heads": [7, 0, 5], "label": "triplet"}],
}
REVERSE = {
    "type": "activation_patch",
    "granularity": "layer_resid",
    "layers": "all",
    "positions": "last_token",
    "patch_direction": "corrupt->clean",
    "sham_control": True,
}
CONDITIONS = [{"tag": tag, "dataset": {"id": name, "split": "train"}} for tag, name in IDS.items()]
