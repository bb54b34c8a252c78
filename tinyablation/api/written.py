"""What a head writes: the tokens that its mean output raises and lowers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from tinyablation.api.study import Study
from tinyablation.api.verdict import html_table
from tinyablation.heads import Head

if TYPE_CHECKING:
    import pandas

ENDS = ("top", "bottom")


@dataclass(frozen=True)
class Written:
    """What one head writes at the last token of the prompts, read through the unembedding.

    document: the entry of the head in an OV report (`python -m tinyablation ov-report`).
    """

    study: Study
    head: Head
    document: Mapping[str, Any]

    @property
    def norm(self) -> float:
        """The norm of the head's mean output, in units of the residual stream."""
        return float(self.document["vector_norm"])

    @property
    def copying(self) -> float:
        """The copying score of its OV circuit, -1 to 1; 1: it only copies (no prompts needed)."""
        return float(self.document["static"]["copying"])

    @cached_property
    def table(self) -> pandas.DataFrame:
        """One row per token: end ("top", "bottom"), rank (from 1), token, token_id, logit.

        logit: of the mean output through the linear part of the final norm, without its scale; so
        logits compare tokens of one head, not heads.
        """
        import pandas

        return pandas.DataFrame(
            [
                {"end": end, "rank": rank, **{name: token[name] for name in _COLUMNS}}
                for end in ENDS
                for rank, token in enumerate(self.document["tokens"][end], start=1)
            ]
        )

    def __repr__(self) -> str:
        first = ", ".join(repr(token["token"]) for token in self.document["tokens"]["top"][:5])
        return f"Written({self.study.title}: {self.head.name} writes {first})"

    def _repr_html_(self) -> str:
        pairs = zip(*(self.document["tokens"][end] for end in ENDS), strict=True)
        rows = [[repr(each["token"]) for each in pair] for pair in pairs]
        caption = f"{self.study.title}: tokens that {self.head.name} raises and lowers"
        return html_table(caption, ("raises", "lowers"), rows)


_COLUMNS = ("token", "token_id", "logit")
