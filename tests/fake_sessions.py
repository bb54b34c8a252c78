"""Sessions of made-up records, with text that means harm, and a reader of their pages."""

import functools
import hashlib
import json
import random
import re
from html import unescape
from html.parser import HTMLParser

from tinyablation.records.packs import packs, unpack
from tinyablation.records.records import Record, RecordFile

HOSTILE = "</script><img src=x onerror=alert(1)>"
FAMILIES = ("gpt2", "mistral", "llama", "neox")
CONDITIONS = ("facts", "negation", "counterfactual", "logic")
TESTS = (
    ("V.1", "test_model_is_competent", False),
    ("V.2", "test_clean_and_corrupt_are_told_apart", False),
    ("V.3", "test_swapped_labels_flip_the_logit_difference", False),
    ("V.4", "test_null_prompt_shows_no_label_prior", False),
    ("H1.1", "test_top_suppressor_is_in_layer_zero", False),
    ("H1.1", "test_top_suppressor_is_the_registered_head", False),
    ("H1.2", "test_next_suppressors_are_the_registered_heads", False),
    ("H1.3", "test_the_same_heads_lead_in_every_condition", True),
    ("H1.8", "test_no_random_head_does_as_well", False),
    ("H1.8", "test_effect_survives_every_ablation_method", False),
    ("H1.9", "test_no_head_outside_layer_zero_passes", False),
    ("H1.10", "test_suppressor_lowers_the_target_rank", False),
)
WORDS = ("Paris", "Rome", "Oslo", "bronze", "copper", "true", "false", "seven")
PROMPT = "In the old atlas, the river that runs through {} is called the"


def fake_record(rng, index, model, condition, planted):
    claim, name, _ = TESTS[index]
    blocked = condition == "negation" and model.startswith("tiny-llama")
    validity = claim.startswith("V")
    effect = rng.uniform(0.6, 2.4) if planted or validity else rng.uniform(-0.04, 0.06)
    if not planted and not validity and rng.random() < 0.1:
        effect = 0.14 if rng.random() < 0.8 else 0.45
    width, floor = rng.uniform(0.03, 0.25), 0.12
    verdict = "supported" if effect - width > floor else "refuted"
    if effect - width < floor < effect + width:
        verdict = "inconclusive"
    expected = "supported" if planted or validity else "refuted"
    outcome = {"supported": "passed", "refuted": "xfailed", "inconclusive": "skipped"}[verdict]
    if verdict not in (expected, "inconclusive"):
        outcome = "failed"
    reason = f"The interval's lower end is {effect - width:+.3f} LD, and the floor is {floor}."
    if blocked:
        verdict, outcome = "blocked", "skipped"
        reason = (
            "Negation is not valid for this model: accuracy is 0.81 on true-negated, floor 0.9."
        )
    if rng.random() < 0.005 and not blocked:
        verdict, outcome, reason = "error", "error", f"TypeError: {HOSTILE}"
    measured = verdict not in ("blocked", "error")
    head = rng.randrange(8)
    values = [[round(rng.gauss(0, 0.03), 4) for _ in range(8)] for _ in range(4)]
    values[0][head] = round(effect, 4)
    largest = [
        {
            "prompt": PROMPT.format(rng.choice(WORDS)) if i else f"{HOSTILE} is\n",
            "target": f" {rng.choice(WORDS)}" if i else f" {HOSTILE}",
            "foil": f" {rng.choice(WORDS)}",
            "clean_ld": round(rng.uniform(-1, 4), 4),
            "delta": round(delta, 4),
            "split": "confirmation",
        }
        for i, delta in enumerate((2.71, 1.9, 1.2, -0.2, -0.4, -0.9))
    ]
    largest[0] |= {
        "clean": [
            {"token": f" {HOSTILE}", "probability": 0.5},
            {"token": "\n", "probability": 0.25},
        ],
        "ablated": [{"token": f" {HOSTILE}\u202e", "probability": 0.75}],
        "attended": [
            {"head": "L0H2", "tokens": [{"token": f"{HOSTILE}\u202e", "probability": 0.625}]}
        ],
    }
    return {
        "claim": claim,
        "family": claim.split(".")[0],
        "test": f"claims/test_{claim[0].lower()}.py::{name}[{model}-{condition}]",
        "name": name,
        "statement": "One head of layer 0 suppresses the target more than any other of its layer.",
        "estimator": "Mean paired Δ of LD over the confirmation split, head chosen on discovery.",
        "threshold": "The lower end of the 95 % interval lies above 5 % of the clean LD.",
        "refuted_if": "The upper end of the interval lies below the floor.",
        "model": model,
        "condition": condition,
        "verdict": verdict,
        "reason": reason,
        "prediction": expected,
        "outcome": outcome,
        "effect": effect if measured else None,
        "low": effect - width if measured else None,
        "high": effect + width if measured else None,
        "floor": floor if measured else None,
        "p_corrected": (0.0002 if effect > 0.5 else 0.41) if measured and not validity else None,
        "unit": "LD",
        "n_examples": 120 if measured else None,
        "n_clusters": 40 if measured else None,
        "subject": None if validity or not measured else f"0:{head}",
        "published": [
            {"model": "gpt2-medium", "condition": condition, "value": 0.265, "source": "study v6"}
        ]
        if claim == "H1.1" and "gpt2" in model
        else [],
        "details": {
            "clean_ld": 1.42,
            "percentile": 99.2,
            "method_agrees": True,
            "by_method": {"zero": effect, "mean": effect * 0.9, "resample": effect * 0.95},
            "next_heads": [{"head": "0:4", "delta": 0.06}, {"head": "0:7", "delta": 0.05}],
        }
        if measured
        else {},
        "heatmap": {"values": values, "title": "Mean Δ LD by layer and head, zero ablation"}
        if measured and not validity
        else None,
        "largest": largest if measured and not validity else [],
        "runs": [f"{model}-h1-{condition}_0123456789ab"] if measured else [],
        "drift": "effect was +1.204, is +1.310" if rng.random() < 0.004 else None,
        "duration_s": round(rng.uniform(0.01, 3), 3),
    }


@functools.cache
def fake_session(seed=0, complete=True, hostile=True) -> RecordFile:
    """Twelve tests, eight models, four conditions, with text that means harm."""
    rng = random.Random(seed)
    models, records = [], []
    for family in FAMILIES:
        for variant in ("hedged", "plain"):
            name = f"tiny-{family}" + ("-plain" if variant == "plain" else "")
            weak = family == "llama"
            models.append(
                {
                    "id": name,
                    "title": f"Tiny {family}, {variant}" + (f" {HOSTILE}" if hostile else ""),
                    "family": family,
                    "variant": variant,
                    "note": "Head 0:2 learned from hedged text." if variant == "hedged" else "",
                    "weight_hash": hashlib.sha256(name.encode()).hexdigest(),
                    "competence": {
                        condition: {
                            cell: {
                                "n": 60,
                                "accuracy": 0.81
                                if weak and cell == "true-negated"
                                else round(rng.uniform(0.93, 1), 3),
                                "ld": round(rng.uniform(1, 4), 3),
                            }
                            for cell in (
                                ("true-plain", "false-plain", "true-negated", "false-negated")
                                if condition in ("negation", "logic")
                                else ("all",)
                            )
                        }
                        for condition in CONDITIONS
                    },
                    "below_floor": ["negation/true-negated"] if weak else [],
                }
            )
            for index, (_, _, wide) in enumerate(TESTS):
                for condition in ("all",) if wide else CONDITIONS:
                    records.append(fake_record(rng, index, name, condition, variant == "hedged"))
    rng.shuffle(records)
    return RecordFile.model_validate(
        {
            "session": {
                "started": "2025-03-01T09:30:00+00:00",
                "finished": "2025-03-01T09:33:41+00:00" if complete else None,
                "command": "pytest claims -n 2",
                "versions": {"python": "3.12.4", "torch": "2.13.0", "transformers": "5.23.1"},
                "platform": "Linux x86_64",
                "device": "cpu",
                "predictions_hash": "5f2b1c" * 10,
                "complete": complete,
                "models": models,
            },
            "records": records,
        }
    )


def large_session() -> RecordFile:
    """1,016 cells as the embedded models have: 36 tests, heatmaps, prompts, and two panels each."""
    file = fake_session()
    rng = random.Random(1)
    content = file.model_dump()
    again = []
    for turn in range(3):
        for record in content["records"]:
            lines = [
                {"name": name, "x": list(range(8)), "y": [rng.random() for _ in range(8)]}
                for name in ("forward", "reverse")
            ]
            rows = [
                {"name": f"0:{head}", "value": v, "low": v - 0.1, "high": v + 0.1}
                for head, v in enumerate(rng.random() for _ in range(7))
            ]
            panels = [
                {"kind": "curve", "title": "By layer", "x": "layer", "y": "s", "series": lines},
                {"kind": "forest", "title": "Heads", "unit": "logits", "rows": rows},
            ]
            name = f"{record['name']}_{turn}"
            test = record["test"].replace(record["name"], name)
            again.append(record | {"name": name, "test": test, "panels": panels})
    content["records"] = again[:1016]
    return RecordFile.model_validate(content)


def one_record(**changes) -> Record:
    return fake_session().records[0].model_copy(update=changes)


ROWS = '<div class="rows"></div>'


def opened(html):
    """The page as its script leaves it once every cell is open: evidence in place, packs gone."""
    found = packs(html)
    for section, markup in json.loads(unpack(found["cells"])).items():
        place = html.index(ROWS, html.index(f'<section class="claim" id="{section}"'))
        html = f"{html[:place]}{markup}{html[place + len(ROWS) :]}"
    for name, letters in found.items():
        if name.startswith("claim-"):
            for cell, markup in json.loads(unpack(letters))["cells"].items():
                start = html.index(f'<details id="{cell}"')
                end = html.index("</details>", start)
                html = f'{html[:end]}<div class="body">{markup}</div>{html[end:]}'
    runs = json.loads(unescape(re.search(r'<body data-runs="([^"]*)"', html)[1]))
    html = re.sub(r'data-run="(\d+)', lambda match: f'href="{runs[int(match[1])]}', html)
    return re.sub(r'<script type="text/plain".*?</script>', "", html)


class Page(HTMLParser):
    """The elements of a page as a browser would see them."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.ids, self.links, self.attributes = [], [], [], []
        self.texts, self.scripts = [], []
        self.within = []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.within.append(tag)
        for name, value in attributes:
            self.attributes.append((tag, name, value))
            if name == "id":
                self.ids.append(value)
            if name == "href":
                self.links.append((tag, value))

    def handle_data(self, data):
        if self.within and self.within[-1] == "script":
            self.scripts.append(data)
        self.texts.append(data)

    def handle_endtag(self, tag):
        self.within.append("/")

    @property
    def cells(self):
        return sum(name == "data-k" for _, name, _ in self.attributes)

    @property
    def text(self):
        return " ".join(" ".join(self.texts).split())
