"""The description of a session's files for Zenodo: the content of a .zenodo.json.

Fields and vocabularies: developers.zenodo.org, "Deposit metadata". The day of publication is left
to Zenodo, for no record knows it.
"""

from collections import Counter
from collections.abc import Sequence
from html import escape
from typing import Any

from tinyablation.records.records import VERDICTS, RecordFile
from tinyablation.report.export_tables import said_of
from tinyablation.report.markdown import one_line

_MOST_NAMES = 3  # models that a title names
_KEYWORDS = ("mechanistic interpretability", "language models", "ablation", "claims", "pytest")


def zenodo(file: RecordFile, *, creators: Sequence[str], licence: str) -> dict[str, Any]:
    """The metadata of a session, as plain JSON values.

    creators: as Zenodo shows them, "Family, Given" or an organisation; licence: the SPDX id under
    which the files are published.
    """
    session = file.session
    names = {model.id: model.title or model.id for model in session.models}
    models = list(dict.fromkeys(filter(None, (record.model for record in file.records))))
    about = ", ".join(models) if len(models) <= _MOST_NAMES else f"{len(models)} models"
    paragraphs = [
        "Claims about the mechanisms of language models, each measured and judged as a test: "
        "records with effects, intervals and verdicts, and what they rest on.",
        " ".join(said_of(file)),
    ]
    rows = []
    for model in models:
        verdicts = Counter(record.verdict for record in file.records if record.model == model)
        counted = ", ".join(f"{verdicts[word]} {word}" for word in VERDICTS if verdicts[word])
        rows.append(f"{model} ({names.get(model, model)}): {counted}")
    tool = session.versions.get("tinyablation")
    return {
        "title": one_line(
            f"Claims about language models, tested: {about or 'no model'} ({session.started[:10]})"
        ),
        "upload_type": "dataset",
        "description": "".join(f"<p>{_html(text)}</p>" for text in paragraphs)
        + f"<ul>{''.join(f'<li>{_html(row)}</li>' for row in rows)}</ul>",
        "creators": [{"name": name} for name in dict.fromkeys(map(one_line, creators))],
        "access_right": "open",
        "license": licence,
        "language": "eng",
        "keywords": list(dict.fromkeys((*_KEYWORDS, *map(one_line, models)))),
        "notes": _html(
            f"Recorded by: {session.command}. sha256 of the predictions: "
            f"{session.predictions_hash}." + (f" tinyablation {tool}." if tool else "")
        ),
    }


def _html(text: str) -> str:
    """Text for a field that Zenodo shows as HTML."""
    return escape(one_line(text))
