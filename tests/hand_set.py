"""A GPT-2 whose weights are set by hand, part by part of its stream. Not tests.

The stream is divided into parts: a token has its code in some of them, heads and MLPs read parts
and write into others, and the unembedding reads one. Codes are of length 1 and of sum 0, so that
the norm takes no mean away; they are random, so that no figure is the same for all prompts. The
norm stretches a stream of a few codes to the root of its width: heads read and move some 8 times a
code, and a match of weight 1 scores some 8. What is not set is next to nothing.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import torch
import transformers as hf
from torch import Tensor

from tests.blank_gpt2 import blank_gpt2
from tinyablation.heads import Head

POSITIONS = 32
LITTLE = 1e-3  # of weights that are not set: no head writes nothing


def flag() -> Tensor:
    """[1, 2] the code of a part that is there or not."""
    return torch.tensor([[1.0, -1.0]]) / 2**0.5


class HandSet:
    """parts: the name of each part of the stream, and its dimensions; size: of a head."""

    def __init__(
        self,
        tokenizer: hf.PreTrainedTokenizerFast,
        parts: Mapping[str, int],
        *,
        layers: int,
        heads: int,
        size: int,
    ) -> None:
        self.tokenizer, self.size, self.width = tokenizer, size, size * heads
        self.parts, n = {}, 0
        for name, size in parts.items():
            self.parts[name] = slice(n, n + size)
            n += size
        assert n <= self.width, f"the stream has {self.width} dimensions, {n} are asked"
        self.model = blank_gpt2(
            tokenizer,
            width=self.width,
            layers=layers,
            heads=heads,
            positions=POSITIONS,
            inner=2 * self.width,
            tied=False,
        )
        self.generator = torch.Generator().manual_seed(0)
        # Dimensions in use: of a head for its scores and for its values, and of a layer's MLP.
        self.taken: Counter[tuple[Head | int, str]] = Counter()
        with torch.no_grad():
            for block in self.model.transformer.h:
                for matrix in (block.attn.c_attn.weight, block.attn.c_proj.weight):
                    matrix += LITTLE * self._normal(*matrix.shape)

    def _normal(self, *shape: int) -> Tensor:
        return torch.randn(*shape, generator=self.generator)

    def codes(self, n: int, part: str) -> Tensor:
        """[n, size of the part], at right angles to each other if there is room."""
        own = self.parts[part]
        size = own.stop - own.start
        drawn = self._normal(n, size)
        drawn -= drawn.mean(dim=1, keepdim=True)
        if n < size:
            return torch.linalg.qr(drawn.T)[0].T
        return drawn / drawn.norm(dim=1, keepdim=True)

    def ids(self, words: Iterable[str]) -> list[int]:
        """Of words of one token each, with the space before them."""
        found = [self.tokenizer.encode(word) for word in words]
        assert all(len(ids) == 1 for ids in found), "a word is cut into pieces"
        return [id for (id,) in found]

    @torch.no_grad()
    def embed(self, part: str, ids: Sequence[int], codes: Tensor) -> None:
        self.model.transformer.wte.weight[ids, self.parts[part]] = codes

    @torch.no_grad()
    def unembed(self, part: str, ids: Sequence[int], codes: Tensor) -> None:
        self.model.lm_head.weight[ids, self.parts[part]] = codes

    @torch.no_grad()
    def place(self, part: str, codes: Tensor) -> None:
        """codes: [position, size of the part]."""
        self.model.transformer.wpe.weight[:, self.parts[part]] = codes

    @torch.no_grad()
    def attend(self, head: Head, query: str | None, key: str, weight: Tensor | float) -> None:
        """Add to the head's scores: query's part, times weight, times key's part.

        weight: [size of the query's part, of the key's], or a number for a match of the two. query:
        None for the same query at every position, which is weight [size of the key's part].
        """
        sought = self.parts[key]
        n = sought.stop - sought.start
        own = self._take(head, "scores", n)
        attention = self.model.transformer.h[head.layer].attn
        queries, keys, _ = attention.c_attn.weight.split(self.width, dim=1)
        keys[sought, own] = torch.eye(n)
        if query is None:
            attention.c_attn.bias[own] = torch.as_tensor(weight)
        else:
            queries[self.parts[query], own] = (
                weight if isinstance(weight, Tensor) else weight * torch.eye(n)
            )

    @torch.no_grad()
    def move(self, head: Head, read: str, write: str, matrix: Tensor | float) -> None:
        """Let the head write what it reads where it attends, times matrix or number, elsewhere."""
        source = self.parts[read]
        n = source.stop - source.start
        own = self._take(head, "values", n)
        attention = self.model.transformer.h[head.layer].attn
        attention.c_attn.weight.split(self.width, dim=1)[2][source, own] = torch.eye(n)
        attention.c_proj.weight[own, self.parts[write]] = (
            matrix if isinstance(matrix, Tensor) else matrix * torch.eye(n)
        )

    @torch.no_grad()
    def compute(self, layer: int, read: str, write: str, matrix: Tensor | float) -> None:
        """Let a layer's MLP do the same at every position by itself: gelu(x) - gelu(-x) = x."""
        mlp, source = self.model.transformer.h[layer].mlp, self.parts[read]
        n = source.stop - source.start
        taken = self.taken[layer, "mlp"]
        self.taken[layer, "mlp"] += 2 * n
        for at, sign in ((taken, 1.0), (taken + n, -1.0)):
            own = slice(at, at + n)
            mlp.c_fc.weight[source, own] = sign * torch.eye(n)
            mlp.c_proj.weight[own, self.parts[write]] = sign * (
                matrix if isinstance(matrix, Tensor) else matrix * torch.eye(n)
            )

    def _take(self, head: Head, what: str, n: int) -> slice:
        """The head's next n dimensions, in those of the whole layer."""
        taken = self.taken[head, what]
        self.taken[head, what] += n
        assert taken + n <= self.size, f"{head} has {self.size} dimensions, {taken + n} are asked"
        return slice(head.head * self.size + taken, head.head * self.size + taken + n)

    def save(self, folder: Path) -> None:
        self.model.save_pretrained(folder)
        self.tokenizer.save_pretrained(folder)
