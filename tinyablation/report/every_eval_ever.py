"""The results of one model as a document of Every Eval Ever, the shared schema of evaluations.

https://github.com/evaleval/every_eval_ever, schema 0.3.0: one file a model, a result a test case.
The score is the estimate, in its unit, with its interval; what the schema asks for and no record
says is left out, or "unknown" where the schema knows that word.
"""

import re
from datetime import datetime
from typing import Any

from tinyablation.characters import named
from tinyablation.records.records import Record, RecordFile, Session, SessionModel
from tinyablation.spelling import sentence_of
from tinyablation.verdicts.verdicts import RANGES

SCHEMA = "0.3.0"
_UNKNOWN = "unknown"
# How the functions that judge (verdicts.py) name a bound in their reasons, and where a claim holds.
_SIDES = {"the floor": "above", "the ceiling": "below", "+-": "within"}
_LEVEL = re.compile(r"([\d.]+) % interval")


def every_eval_ever(file: RecordFile, model: SessionModel, *, source: str) -> dict[str, Any]:
    """The document of one model of a session, as plain JSON values.

    source: who publishes the results. The model goes by its repository of the Hugging Face hub; if
    it comes from none, by its own id, and the document says so. Test cases without a figure
    (blocked, broken) have no score, so they are named in source_metadata.
    """
    session = file.session
    records = [record for record in file.records if record.model == model.id]
    figures = [record for record in records if record.effect is not None]
    without = [f"{_key(record)}: {record.verdict}" for record in records if record.effect is None]
    made = str(int(datetime.fromisoformat(session.finished or session.started).timestamp()))
    name = model.repo or model.id
    document = {
        "schema_version": SCHEMA,
        "evaluation_id": f"tinyablation/{name}/{made}",
        "evaluation_timestamp": session.started,
        "retrieved_timestamp": made,
        "source_metadata": {
            "source_name": "Tiny Ablation Lab",
            "source_type": "evaluation_run",
            "source_organization_name": source,
            # Whether they made the model too is not recorded.
            "evaluator_relationship": "other",
            "additional_details": _texts(
                {
                    "complete": "yes" if session.complete else "no",
                    "test cases without a figure": "; ".join(without),
                }
            ),
        },
        "model_info": _model(model, session, name),
        "eval_library": {
            "name": "tinyablation",
            "version": session.versions.get("tinyablation", _UNKNOWN),
            "additional_details": _texts(
                {
                    "command": session.command,
                    "device": session.device,
                    "platform": session.platform,
                    "protocol": session.protocol,
                    "sha256 of the predictions": session.predictions_hash,
                    **{f"version of {name}": each for name, each in session.versions.items()},
                }
            ),
        },
        "evaluation_results": [_result(record) for record in figures],
    }
    shown: dict[str, Any] = _shown(document)
    return shown


def _model(model: SessionModel, session: Session, name: str) -> dict[str, Any]:
    details = {
        # Hooks run inside the model, so whoever measured had it; whether others can is not known.
        "deployment_type": "self_deployed",
        "model_availability": _UNKNOWN,
        "family": model.family,
        "variant": model.variant,
        "note": model.note,
        "origin of the id": None if model.repo else "this session: no repository of the hub",
        "sha256 of the weights": model.weight_hash,
    }
    found: dict[str, Any] = {
        "name": model.title or model.id,
        "id": name,
        "additional_details": _texts(details),
    }
    if "transformers" in session.versions:
        version = session.versions["transformers"]
        found["inference_engine"] = {"name": "transformers", "version": version}
    return found


def _result(record: Record) -> dict[str, Any]:
    least, most = RANGES.get(record.unit, ("-Infinity", "Infinity"))
    side = side_that_holds(record)
    return {
        "evaluation_result_id": _key(record),
        "evaluation_name": f"{record.claim} {sentence_of(record.name)}",
        "source_data": {
            "dataset_name": f"tinyablation prompts: {record.condition}",
            "source_type": "other",
            "additional_details": _texts({"condition": record.condition}),
        },
        "metric_config": {
            "evaluation_description": record.statement,
            "metric_id": f"tinyablation.{record.claim}.{record.name}",
            "metric_unit": record.unit,
            "lower_is_better": side == "below",
            "score_type": "continuous",
            "min_score": least,
            "max_score": most,
            "additional_details": _texts(
                {
                    "estimator": record.estimator,
                    "threshold": record.threshold,
                    "refuted if": record.refuted_if,
                    "bound": record.floor,
                    "direction": f"the claim holds {side} the bound; no score is good or bad"
                    if side
                    else "not recorded; no score is good or bad",
                }
            ),
        },
        "score_details": {
            "score": record.effect,
            "details": _texts(
                {
                    "verdict": record.verdict,
                    "reason": record.reason,
                    "prediction": record.prediction,
                    "predicted on": record.predicted_on,
                    "how the prediction was changed": record.prediction_changed,
                    "p": record.p_value,
                    "p, adjusted over the session": record.p_adjusted,
                    "p, corrected over the sweep": record.p_corrected,
                    "clusters": record.n_clusters,
                    "subject": record.subject,
                    "scope": record.scope,
                    "command": record.command,
                }
            ),
            "uncertainty": _uncertainty(record),
        },
    }


def _uncertainty(record: Record) -> dict[str, Any]:
    found: dict[str, Any] = {}
    if record.low is not None and record.high is not None:
        found["confidence_interval"] = {"lower": record.low, "upper": record.high}
        # A threshold that names another level may be judged by a figure with that interval.
        if set(_LEVEL.findall(record.threshold)) <= {"95"}:
            found["confidence_interval"]["confidence_level"] = 0.95
    if record.n_examples is not None:
        found["num_samples"] = record.n_examples
    return found


def side_that_holds(record: Record) -> str | None:
    """Where the effect lies if the claim holds: "above", "below" or "within" the bound, or None.

    A supported claim whose interval lies wholly on one side of its bound says so; else the reason,
    where it names one kind of bound. (Of a claim of several parts, another than the figure's own
    may have refuted it.)
    """
    said = {side for word, side in _SIDES.items() if word in record.reason}
    found = _side_of_interval(record)
    if found is not None and "within" not in said and record.verdict == "supported":
        return found
    return said.pop() if len(said) == 1 else None


def _side_of_interval(record: Record) -> str | None:
    if record.floor is None or record.low is None or record.high is None:
        return None
    return "above" if record.low > record.floor else "below" if record.high < record.floor else None


def _key(record: Record) -> str:
    """A name of a test case that is its own, in merged sessions too."""
    return record.test if record.source is None else f"{record.test} ({record.source})"


def _texts(values: dict[str, Any]) -> dict[str, str]:
    """What is known of these as text, the only kind of value that the schema allows there."""
    return {name: str(value) for name, value in values.items() if value not in (None, "")}


def _shown(value: Any) -> Any:
    """The same with hidden characters named, in all texts and names."""
    if isinstance(value, str):
        return named(value, kept="\n")
    if isinstance(value, dict):
        return {named(name): _shown(each) for name, each in value.items()}
    return [_shown(each) for each in value] if isinstance(value, list) else value
