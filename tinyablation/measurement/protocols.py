"""Protocols of measurement: the corrected one, and the published one for comparison.

The published protocol deliberately repeats what the study did (pitfalls P1 and P2): prompts are
padded on the right to the longest of the condition and every figure is read at the last index,
which is a pad for most; heads are zeroed as in a model with folded LayerNorm (zero_folded); and
"clean" is the mean over the ablated heads. No condition is gated. Its only purpose is to show which
claims are supported under it but not under the corrected one.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from tinyablation.engine.tables import BASELINE
from tinyablation.errors import TinyAblationError
from tinyablation.interventions.interventions import METHODS

if TYPE_CHECKING:
    import pandas

    from tinyablation.corpora.examples import Example
    from tinyablation.corpora.tokenisation import AnyTokenizer, Prompt
    from tinyablation.interventions.batteries import Side
    from tinyablation.models.loading import LoadedModel

CORRECTED, PUBLISHED = "corrected", "published"
PROTOCOLS = (CORRECTED, PUBLISHED)
# Columns replaced by the mean over heads. Ranks and tokens have no mean and stay unchanged.
_AVERAGED = (
    *("logit_diff", "target_logit", "foil_logit", "target_probability", "entropy"),
    *("seq_logprob_diff", "seq_probability"),
)


class ProtocolError(TinyAblationError):
    """A protocol needs something that the model or table does not have."""


def encode(
    model: "LoadedModel",
    tokenizer: "AnyTokenizer",
    examples: Sequence["Example"],
    side: "Side",
    protocol: str,
) -> list["Prompt"]:
    """The prompts of one side of these examples, encoded for a protocol.

    tokenizer: the model's own.
    """
    from tinyablation.corpora.tokenisation import encode_examples

    prompts = list(encode_examples(tokenizer, examples, model.bos_id, side=side))
    return pad_right(prompts, model) if protocol == PUBLISHED else prompts


def pad_right(prompts: Sequence["Prompt"], model: "LoadedModel") -> list["Prompt"]:
    """The prompts, right-padded to the longest; the engine reads at the last index.

    A pad attends to everything before it, because, as in the study, no mask prevents it. Raises
    ProtocolError if the tokenizer has neither a pad nor an EOS token.
    """
    tokenizer = model.tokenizer
    pad = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id
    if not isinstance(pad, int):
        raise ProtocolError(
            f"model {model.entry.id!r}: its tokenizer has neither a pad nor an EOS token, so the "
            "published protocol cannot pad; use --protocol corrected"
        )
    longest = max(len(prompt.ids) for prompt in prompts)
    return [
        prompt._replace(ids=(*prompt.ids, *(pad,) * (longest - len(prompt.ids))))
        for prompt in prompts
    ]


def baseline_of_heads(table: "pandas.DataFrame") -> "pandas.DataFrame":
    """The table with the baseline's figures replaced by the mean over single ablated heads.

    The mean is per example, over all single heads in the table; a table without any is returned
    unchanged.
    """
    single = table[(table["head"] >= 0) & table["method"].isin(METHODS)]
    if single.empty:
        return table
    means = single.groupby("example")[list(_AVERAGED)].mean()
    table = table.copy()
    clean = table["intervention"] == BASELINE
    table.loc[clean, list(_AVERAGED)] = means.loc[table.loc[clean, "example"]].to_numpy()
    return table
