"""Verdicts as notebooks show them: the library's own, with what they are about."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, Literal, Protocol, get_args

from markupsafe import Markup, escape

from tinyablation.api.errors import ApiError
from tinyablation.records.splits import BOTH, SPLITS
from tinyablation.spelling import did_you_mean
from tinyablation.verdicts.floors import EFFECT_SHARE, Floor, figure
from tinyablation.verdicts.verdicts import Verdict as Judged
from tinyablation.verdicts.verdicts import judge_above_floor, judge_below_ceiling

if TYPE_CHECKING:
    import pandas
    from matplotlib.figure import Figure

    from tinyablation.statistics.intervals import Estimate

Alternative = Literal["greater", "less"]
# The glyphs of the report page.
GLYPHS = {"supported": "●", "present": "▲", "refuted": "✕", "inconclusive": "◇", "blocked": "■"}


@dataclass(frozen=True)
class Verdict(Judged):
    """A verdict, and what it is about. A claim's `judge` takes it as it is.

    status: "supported", "present" (there, but not shown to reach the minimum effect), "refuted",
    "inconclusive" or "blocked" (it cannot be judged: see reason). reason: one sentence. effect: the
    figure with its 95 % interval over clusters (`estimate`, `low`, `high`, `n`, `n_clusters`), None
    if blocked. floor: the minimum effect. Both in `unit`. margin: the effect beyond 5 % of each
    example's own clean LD, whose interval is what is judged. model, condition, subject: what it is
    about; split: the examples that judge.
    """

    model: str = ""
    condition: str = ""
    subject: str | None = ""
    split: str = ""

    @classmethod
    def of(cls, judged: Judged, **about: str) -> Verdict:
        """The library's verdict with what it is about."""
        own = {field.name: getattr(judged, field.name) for field in fields(Judged)}
        return cls(**{**own, **about})

    @property
    def table(self) -> pandas.DataFrame:
        """One row: model, condition, subject, split, verdict, estimate, low, high, floor, unit,
        n_examples, n_clusters, p, reason.
        """
        import pandas

        effect = self.effect
        figures = (None, None, None, 0, 0) if effect is None else tuple(effect)
        names = ("estimate", "low", "high", "n_examples", "n_clusters")
        found = dict(zip(names, figures, strict=True))
        row = {
            **{"model": self.model, "condition": self.condition, "subject": self.subject},
            **{"split": self.split, "verdict": self.status},
            **{name: found[name] for name in names[:3]},
            **{"floor": self.floor, "unit": self.unit},
            **{name: found[name] for name in names[3:]},
            **{"p": self.p_value, "reason": self.reason},
        }
        return pandas.DataFrame([row])

    def plot(self) -> Figure:
        """A forest plot of its one line: the effect, its interval, zero and the minimum effect.

        Raises ApiError if it is blocked: then there is no figure.
        """
        from tinyablation.api.plots import forest

        line = (self.subject or "", self.effect, self.status)
        return forest([line], self._title, self.unit, self.floor)

    @property
    def _title(self) -> str:
        return ", ".join(filter(None, (self.model, self.condition)))

    def __str__(self) -> str:
        return f"{self.status}: {self.reason}"

    def _repr_html_(self) -> str:
        head = Markup("<b>{} {}</b> {}").format(GLYPHS[self.status], self.status, self._title)
        return str(Markup("<div>{}<br>{}</div>").format(head, escape(self.reason)))


def split_of(given: str | None) -> str:
    """The prompts that judge: "discovery", "confirmation" or "both", which None stands for."""
    known = (*SPLITS, BOTH)
    if given is not None and given not in known:
        raise ApiError(f"split {given!r}: {did_you_mean(given, known)}")
    return given or BOTH


def check_alternative(given: str) -> None:
    """Raise ApiError unless it is an alternative."""
    if given not in get_args(Alternative):
        raise ApiError(f"alternative {given!r}: {did_you_mean(given, get_args(Alternative))}")


class Measured(Protocol):
    """What can be judged by an effect: a sweep, or sets of heads."""

    def effect(self, who: Any, *, split: str) -> Estimate: ...
    def margin_of(self, who: Any, *, split: str, share: float) -> Estimate: ...
    def floor(self, split: str) -> Floor: ...


def judge_effect(
    measured: Measured, who: Any, what: str, *, split: str = BOTH, alternative: Alternative
) -> Judged:
    """The verdict on "zeroing them raises LD" ("greater") or lowers it ("less"), as claims judge.

    The interval must lie beyond 5 % of each example's clean LD, .01 logits and the noise.
    """
    effect, floor = measured.effect(who, split=split), measured.floor(split)
    if alternative == "greater":
        margin = measured.margin_of(who, split=split, share=EFFECT_SHARE)
        return judge_above_floor(effect, floor=floor, margin=margin, what=what)
    margin = measured.margin_of(who, split=split, share=-EFFECT_SHARE)
    return judge_below_ceiling(effect, ceiling=-floor, margin=margin, what=what)


def html_table(caption: str, columns: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """A table for a notebook; every text in it is escaped, numbers have three digits."""

    def cell(value: object) -> str:
        return figure(value) if isinstance(value, float) and value == value else str(value)

    head = Markup("").join(Markup("<th>{}</th>").format(name) for name in columns)
    body = Markup("").join(
        Markup("<tr>{}</tr>").format(
            Markup("").join(Markup("<td>{}</td>").format(cell(value)) for value in row)
        )
        for row in rows
    )
    made = Markup("<table><caption>{}</caption><thead><tr>{}</tr></thead><tbody>{}</tbody></table>")
    return str(made.format(caption, head, body))
