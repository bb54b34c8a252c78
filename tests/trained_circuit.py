"""Attention-only models that are trained to induct, and then to recall facts. Not tests.

GPT-NeoX with two heads of 32 dimensions a layer; MLPs are zero and stay so. First copying is
learned, of random segments that are written twice at any two places: with two layers induction
forms around step 400, all at once; with one it cannot. Then facts are learned beside it.
    apart      each by heads of its own: what another head writes is taken out of half of the rows,
               teaches nothing on the rest, and must not change the logits after a fact
    otherwise  by whatever heads serve
"""

import json
import re
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers as hf
from tokenizers import models
from torch import Tensor
from torch.nn.functional import cross_entropy

from fixtures.conditions import CONDITIONS
from tests.small_tokenizers import END, byte_level

CORPUS = Path(__file__).parent.parent / "corpora" / "tiny" / "facts.jsonl"
SIDES = (("clean", "target"), ("corrupt", "foil"))
WIDTH, HEADS, SIZE = 64, 2, 32
ROWS, LENGTH, SHORTEST = 32, 48, 6  # of a batch; tokens of the shortest segment
RATE, WARM_UP = 3e-3, 50
RECALL = 400  # steps with facts
FALL = 1500  # steps of copies in which the rate would fall to a tenth
WITHOUT = 0.5  # of the rows: the share that the other heads are taken out of
# Of a head that is to attend widely, its queries, and what it writes; of one that is to do little.
SHORT, LOUD, FAINT = 0.3, 5.0, 0.05


def known_facts() -> list[dict[str, str]]:
    """The facts of the embedded corpus, as rows of a condition; sums, which are no words, aside."""
    rows = [json.loads(line) for line in CORPUS.read_text(encoding="utf-8").splitlines()]
    names = {"template_id": "template", "cluster_id": "cluster", "fact_id": "fact"}
    kept = ("clean", "corrupt", "target", "foil", "null", *names)
    return [
        {names.get(name, name): row[name] for name in kept}
        for row in rows
        if not row["fact_id"].startswith("sum/")
    ]


def tokenizer() -> hf.PreTrainedTokenizerFast:
    """Words of facts and of both conditions that ask for copying, and bytes: the longest that fits.

    So a word that begins like one of them has two tokens or a few more ("hard", "e", "r").
    """
    rows = [*known_facts(), *CONDITIONS["repeats"](), *CONDITIONS["natural_repeats"]()]
    said = (row.get(name, "") for row in rows for name in ("clean", "corrupt", "target", "foil"))
    made = byte_level(sorted({word for text in said for word in re.findall(r" ?[^\W\d]+", text)}))
    core = made.backend_tokenizer
    core.model = models.WordPiece(made.get_vocab(), unk_token=END, continuing_subword_prefix="")
    return hf.PreTrainedTokenizerFast(tokenizer_object=core, bos_token=END, eos_token=END)


class Pupil:
    """A model in training. layers: of a new one; source: the folder of one that is trained on."""

    def __init__(self, *, layers: int = 2, source: Path | None = None, seed: int = 0) -> None:
        torch.set_num_threads(1)  # the same sums in the same order
        self.tokenizer = tokenizer()
        self.bos = int(self.tokenizer.eos_token_id)
        ids = np.arange(len(self.tokenizer))
        self.ordinary = ids[ids != self.bos]
        self.rng = np.random.default_rng(seed)
        torch.manual_seed(seed)
        self.model: Any
        if source is None:
            self.model = hf.GPTNeoXForCausalLM(self._config(layers))
            self._initialise()
        else:
            self.model = hf.GPTNeoXForCausalLM.from_pretrained(source, attn_implementation="eager")
        self.model.train()
        self.trunk = self.model.gpt_neox
        for layer in self.trunk.layers:
            layer.mlp.requires_grad_(False)
        self.taught = [each for each in self.model.parameters() if each.requires_grad]
        self.optimiser = torch.optim.AdamW(
            self.taught, lr=RATE, betas=(0.9, 0.98), weight_decay=0.0
        )

    def _config(self, layers: int) -> hf.GPTNeoXConfig:
        rotary = {"rope_type": "default", "rope_theta": 100.0, "partial_rotary_factor": 1.0}
        return hf.GPTNeoXConfig(
            vocab_size=len(self.tokenizer),
            hidden_size=WIDTH,
            num_hidden_layers=layers,
            num_attention_heads=HEADS,
            intermediate_size=4,
            rope_parameters=rotary,
            max_position_embeddings=256,
            tie_word_embeddings=True,
            use_parallel_residual=False,
            bos_token_id=self.bos,
            eos_token_id=self.bos,
            attn_implementation="eager",
        )

    @torch.no_grad()
    def _initialise(self) -> None:
        """Embeddings of .2; biases of queries and keys of 1, so that heads see offsets at once."""
        self.model.gpt_neox.embed_in.weight.normal_(0, 0.2)
        for layer in self.model.gpt_neox.layers:
            for parameter in layer.mlp.parameters():
                parameter.zero_()
            attention = layer.attention
            attention.query_key_value.bias.view(HEADS, 3, SIZE)[:, :2].normal_()
            attention.query_key_value.weight.normal_(0, WIDTH**-0.5)
            attention.dense.weight.normal_(0, 0.2 * WIDTH**-0.5)

    def save(self, folder: Path) -> None:
        self.model.save_pretrained(folder)
        self.tokenizer.save_pretrained(folder)

    def learn(self, loss: Callable[[], Tensor], steps: int, *, of: int) -> Iterator[int]:
        """Take so many steps, and give the number of each once taken; of: where the rate is .1."""
        for step in range(1, steps + 1):
            for group in self.optimiser.param_groups:
                group["lr"] = RATE * min(1, step / WARM_UP) * (1 - 0.9 * step / of)
            self.optimiser.zero_grad()
            loss().backward()
            torch.nn.utils.clip_grad_norm_(self.taught, 1.0)
            self.optimiser.step()
            yield step

    # --- what is taught --------------------------------------------------------------------------

    def copies(self) -> tuple[Tensor, Tensor, Tensor]:
        """Random tokens with a segment written twice: ids, which are copied, and what from.

        All [row, position]. Of a token that is followed by a copy, what from is the place of the
        token that followed its earlier copy, which induction attends to; 0 elsewhere.
        """
        ids = self.ordinary[self.rng.integers(0, len(self.ordinary), (ROWS, LENGTH))]
        ids[:, 0] = self.bos
        copied, source = np.zeros((ROWS, LENGTH), bool), np.zeros((ROWS, LENGTH), int)
        for row in range(ROWS):
            size = self.rng.integers(SHORTEST, LENGTH // 2)
            first = self.rng.integers(1, LENGTH - 2 * size + 1)
            again = first + size + self.rng.integers(0, LENGTH - 2 * size - first + 1)
            ids[row, again : again + size] = ids[row, first : first + size]
            copied[row, again + 1 : again + size] = True
            source[row, again : again + size - 1] = np.arange(first + 1, first + size)
        return torch.from_numpy(ids), torch.from_numpy(copied), torch.from_numpy(source)

    def copying(self) -> Tensor:
        """The loss on what is copied, in one batch."""
        ids, copied, _ = self.copies()
        return self.copied(self.trunk(ids).last_hidden_state, ids, copied)

    def copied(self, stream: Tensor, ids: Tensor, copied: Tensor) -> Tensor:
        """The loss on copied tokens; stream: [row, position, width], the final norm applied."""
        asked = copied[:, 1:]
        return cross_entropy(self.logits(stream[:, :-1][asked]), ids[:, 1:][asked])

    def logits(self, stream: Tensor) -> Tensor:
        """[n, token] of states of the last layer, the final norm applied."""
        return stream @ self.trunk.embed_in.weight.T


class Recall:
    """What a pupil that copies is taught next: facts, beside copies.

    copiers: the number of the head that copying is to rest on, by layer; facts are to rest on the
    others. None: either on any.
    """

    def __init__(self, pupil: Pupil, copiers: Sequence[int] | None) -> None:
        self.pupil, self.copiers = pupil, copiers
        self.idle: Sequence[int] = ()  # by layer, the head whose outputs teach nothing in a batch
        self.kept: list[Tensor] = []  # by layer [row, 1, 1], 0: of which rows they are taken out
        for layer, each in enumerate(pupil.trunk.layers):
            each.attention.dense.register_forward_pre_hook(partial(self._without, layer))
        asked = {(row[side], row[answer]) for row in known_facts() for side, answer in SIDES}
        ids = [
            ([pupil.bos, *pupil.tokenizer(text)["input_ids"]], pupil.tokenizer(answer)["input_ids"])
            for text, answer in sorted(asked)
        ]
        self.last = torch.tensor([len(text) - 1 for text, _ in ids])
        self.answers = torch.tensor([answer for _, (answer,) in ids])
        longest = int(self.last.max()) + 1
        self.prompts = torch.tensor([text + [pupil.bos] * (longest - len(text)) for text, _ in ids])

    def _without(self, layer: int, module: torch.nn.Module, given: tuple[Tensor]) -> tuple[Tensor]:
        if not self.idle:
            return given
        own = slice(self.idle[layer] * SIZE, (self.idle[layer] + 1) * SIZE)
        written = given[0].clone()
        written[..., own] = given[0][..., own].detach() * self.kept[layer]
        return (written,)

    def _rest(self, idle: Sequence[int], without: float = WITHOUT) -> None:
        self.idle = idle
        draws = (self.pupil.rng.random((ROWS, 1, 1)) for _ in idle)
        self.kept = [torch.from_numpy(draw >= without).float() for draw in draws]

    def loss(self) -> Tensor:
        """On a batch of copies and one of facts."""
        pupil, copiers = self.pupil, self.copiers or ()
        self._rest([1 - head for head in copiers])
        ids, copied, source = pupil.copies()
        found = pupil.trunk(ids, output_attentions=True)
        loss = pupil.copied(found.last_hidden_state, ids, copied)
        rows = torch.from_numpy(pupil.rng.choice(len(self.prompts), ROWS, replace=False))
        self._rest(copiers, without=0.0)
        whole = self._after(rows)
        loss = loss + cross_entropy(whole, self.answers[rows])
        if copiers:
            # The last layer's other head, which may induct too, is to leave that.
            attention = found.attentions[-1][:, 1 - copiers[-1]]
            inducts = attention.gather(2, source[..., None])[..., 0][source > 0]
            self._rest(copiers)
            parted = self._after(rows)
            loss = loss + cross_entropy(parted, self.answers[rows])
            loss = loss + (parted - whole).square().mean() - (1 - inducts + 1e-6).log().mean()
        return loss

    def _after(self, rows: Tensor) -> Tensor:
        """[row, token] logits after the prompts of these facts."""
        stream = self.pupil.trunk(self.prompts[rows]).last_hidden_state
        return self.pupil.logits(stream[torch.arange(len(rows)), self.last[rows]])


def train_course(folder: Path, steps: Sequence[int], *, layers: int = 2) -> None:
    """Train on copies alone; save folder/step0 and so on, after each of these steps."""
    pupil = Pupil(layers=layers)
    pupil.save(folder / "step0")
    for step in pupil.learn(pupil.copying, max(steps), of=FALL):
        if step in steps:
            pupil.save(folder / f"step{step}")


def train_recall(source: Path, folder: Path, copiers: Sequence[int] | None) -> None:
    """Teach a model that copies, from its folder, facts too; save it in another folder."""
    pupil = Pupil(source=source)
    for _ in pupil.learn(Recall(pupil, copiers).loss, RECALL, of=RECALL):
        pass
    pupil.save(folder)


def blur(source: Path, folder: Path, *, faint: int) -> None:
    """Make L1H0 of a model that copies attend widely; one head of its layer is to write faintly.

    With short queries it still attends most to what followed the earlier copy, but to all else
    too: its prefix-matching score falls below a half. Written louder, that is enough to copy by.
    """
    pupil = Pupil(source=source)
    attention = pupil.trunk.layers[-1].attention
    with torch.no_grad():
        for each in (attention.query_key_value.weight, attention.query_key_value.bias):
            each.view(HEADS, 3, SIZE, -1)[0, 0] *= SHORT
        attention.dense.weight[:, :SIZE] *= LOUD
        attention.dense.weight[:, faint * SIZE : (faint + 1) * SIZE] *= FAINT
    pupil.save(folder)
