"""How things are measured: the corrected protocol, and the published one for comparison.

The published protocol repeats, on purpose, what the study did (pitfalls P1 and P2): prompts are
padded on the right to the longest of the condition and every figure is read at the last index,
which is a pad for most; heads are zeroed as in a model with folded LayerNorm (zero_folded); and
what is called clean is the mean over the ablated heads. No condition is gated. It is there to see
which claims live under it and die under the corrected one, and for nothing else.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from tinyablation.engine.tables import BASELINE
from tinyablation.errors import TinyAblationError
from tinyablation.interventions.interventions import METHODS

if TYPE_CHECKING:
    import pandas

    from tinyablation.corpora.examples import Example
    from tinyablation.corpora.tokenisation import Prompt
    from tinyablation.interventions.batteries import Side
    from tinyablation.models.loading import LoadedModel

CORRECTED, PUBLISHED = "corrected", "published"
PROTOCOLS = (CORRECTED, PUBLISHED)
# What the mean over heads replaces. Ranks and tokens have no mean: those rows stay the clean ones.
_AVERAGED = (
    *("logit_diff", "target_logit", "foil_logit", "target_probability", "entropy"),
    *("seq_logprob_diff", "seq_probability"),
)


class ProtocolError(TinyAblationError):
    """A protocol asks for what a model or a table does not have."""


def encode(
    model: "LoadedModel", examples: Sequence["Example"], side: "Side", protocol: str
) -> list["Prompt"]:
    """The prompts of one side of these examples, as a protocol measures them."""
    from tinyablation.corpora.tokenisation import encode_examples

    prompts = list(encode_examples(model.tokenizer, examples, model.bos_id, side=side))
    return pad_right(prompts, model) if protocol == PUBLISHED else prompts


def pad_right(prompts: Sequence["Prompt"], model: "LoadedModel") -> list["Prompt"]:
    """The prompts, pads appended up to the longest of them; the engine reads at the last index.

    A causal model attends from a pad to everything before it, and no mask kept it from doing so.
    Raises ProtocolError when the tokenizer has neither a pad nor an EOS token.
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

    By example, over whatever single heads the table holds; a table without any is returned as is.
    """
    single = table[(table["head"] >= 0) & table["method"].isin(METHODS)]
    if single.empty:
        return table
    means = single.groupby("example")[list(_AVERAGED)].mean()
    table = table.copy()
    clean = table["intervention"] == BASELINE
    table.loc[clean, list(_AVERAGED)] = means.loc[table.loc[clean, "example"]].to_numpy()
    return table
