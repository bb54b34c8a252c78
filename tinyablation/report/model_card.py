"""The results of one model as a part of its Hugging Face model card.

YAML front matter with a model-index (huggingface.co/docs/hub/model-cards#evaluation-results), a
metric a test case, and below it some sentences and a table of verdicts in Markdown.
"""

from collections.abc import Sequence

from tinyablation.records.records import Record, RecordFile, SessionModel
from tinyablation.report.export_tables import said_of
from tinyablation.report.markdown import escaped, one_line
from tinyablation.spelling import sentence_of


def model_card(file: RecordFile, model: SessionModel) -> str:
    """The text to be put into the README.md of a model's repository.

    The model goes by its repository of the hub, or by its title if it comes from none. Test cases
    without a figure (blocked, broken) are only in the table. The level of false discoveries is the
    session's, so it is left out where the session has other models, too.
    """
    from huggingface_hub import EvalResult, ModelCardData

    records = [record for record in file.records if record.model == model.id]
    results = [
        EvalResult(
            task_type="text-generation",
            dataset_type=one_line(f"tinyablation-{record.condition}"),
            dataset_name=one_line(f"Tiny Ablation Lab prompts: {record.condition}"),
            metric_type=one_line(f"tinyablation.{record.claim}.{record.name}"),
            metric_name=one_line(f"{record.claim} {sentence_of(record.name)} ({record.unit})"),
            metric_value=record.effect,
            metric_args=_arguments(record),
        )
        for record in records
        if record.effect is not None
    ]
    alone = len(records) == len(file.records)
    session = file.session.model_copy(
        update={"models": [model]} | ({} if alone else {"multiplicity": None})
    )
    front = ""
    if results:
        data = ModelCardData(
            model_name=one_line(model.repo or model.title or model.id), eval_results=results
        )
        front = f"---\n{data.to_yaml()}\n---\n\n"
    said = " ".join(map(escaped, said_of(file.holding(records, session))))
    return f"{front}## Claims about its mechanisms, tested\n\n{said}\n\n{_table(records)}"


def _table(records: Sequence[Record]) -> str:
    """A row a test, a column a condition, and the verdict in each cell."""
    conditions = list(dict.fromkeys(record.condition for record in records))
    verdicts: dict[tuple[str, str], dict[str, list[str]]] = {}
    for record in records:
        row = verdicts.setdefault((record.claim, record.name), {})
        row.setdefault(record.condition, []).append(record.verdict)
    rows = [["Claim", *conditions]] + [
        [f"{claim} {sentence_of(name)}", *(", ".join(row.get(each, ())) for each in conditions)]
        for (claim, name), row in verdicts.items()
    ]
    head, *body = [f"| {' | '.join(map(escaped, row))} |\n" for row in rows]
    return f"{head}|{' --- |' * (len(conditions) + 1)}\n{''.join(body)}"


def _arguments(record: Record) -> dict[str, str | float | int]:
    """What else a reader needs of a metric, as far as it is known."""
    found = {
        "verdict": str(record.verdict),
        "low": record.low,
        "high": record.high,
        "bound": record.floor,
        "unit": one_line(record.unit),
        "prompts": record.n_examples,
        "clusters": record.n_clusters,
        "subject": None if record.subject is None else one_line(record.subject),
    }
    return {name: value for name, value in found.items() if value not in (None, "")}
