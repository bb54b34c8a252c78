"""Bounds: how much of a measurement is in memory at once, by the device that computes it.

The engine cuts rows into batches by them, and placement reserves the memory that such batches take.
They depend on a device's kind and its total memory, not on what is free: with the batches the
order of sums changes, and with it the last bit, and a device is to give the same figures each time.
(It does unless memory runs out, when memory.Room halves them; another GPU may differ by noise.)
Importing this module does not load torch.
"""

from collections.abc import Iterable
from typing import NamedTuple

from tinyablation.models.devices import kind_of, memory_of

RECORD_NUMBERS = 2**26  # of one clean pass: residuals, z, attention outputs, distributions
LOGIT_NUMBERS = 2**24  # rows x vocabulary: 64 MB in float32
SMALLEST_BATCH, LARGEST_BATCH = 21, 27  # powers of two
SHARE = 8  # a margin is at most this part of a GPU's memory
WIDE_PACK = 512  # nodes


class Bounds(NamedTuple):
    """Bounds on one batch; the engine's Room gives the share of them that fits.

    batch: rows x positions x d_model. pack_nodes: nodes of a pack of prompts that begin alike.
    logits: rows x vocabulary.
    """

    batch: int
    pack_nodes: int
    logits: int = LOGIT_NUMBERS

    @property
    def unhooked_nodes(self) -> int:
        """Nodes of a pack that is computed once, in one row, and from which no other row starts.

        Twice as many: on SmolLM2-135M and two CPU threads, 300 prompts of facts took 2.1 s by 128
        and 2.0 by 256, of logic 5.9 and 5.2, of counterfactual 8.7 and 8.4; by length, 3.5, 8.7 and
        9.0 s. Not timed on a GPU.
        """
        return 2 * self.pack_nodes

    @property
    def margin(self) -> int:
        """Bytes that measuring takes at most beside the weights, in float32.

        Of models whose heads have 64 dimensions or more and whose MLPs are 4 streams wide.
        """
        # Residual streams of a batch that are alive in one layer: input, norm, q, k, v, scores and
        # softmax (as wide as the stream times nodes / d_head), and three of an MLP as wide as 4
        # streams. Seen in layers of a GPT-2 and two Llamas on a CPU: with a d_head of 64, 12 to 22
        # at 128 nodes, 21 to 27 at 512, 36 to 37 at 1,024; with one of 128, 14, 17 and 21.
        streams = 32 if self.pack_nodes <= WIDE_PACK else 40
        return (
            # 805 MB: 4 bytes per number in float32, and twice that for distributions during
            # computation.
            RECORD_NUMBERS * 12
            # 268 MB with the bounds of a CPU.
            + self.batch * 4 * streams
            # 805 MB: logits 4 bytes, then float64: widened, shifted, exponentials, clean
            # probabilities (32), and 12 for the rows read again for ranks.
            + self.logits * 48
        )


# Of a CPU, for its caches: 8 MB a residual stream, 34 MB in an MLP. Attention costs grow with a
# pack's nodes, while fewer prefixes are computed in several packs. For all heads of tiny-neox,
# tiny-mistral and tiny-llama on facts and logic, on one CPU thread, 128 nodes were the fastest in
# all six; 64 took 4 to 25 % more, 256 took 13 to 31 % more. No other number was timed with d_model
# 768. MPS has the same: nothing was timed there.
SMALLEST = Bounds(2**SMALLEST_BATCH, 128)


def bounds_of(kind: str, total: int) -> Bounds:
    """The bounds of a kind of device ("cuda", "mps", "cpu") with so many bytes of memory in all.

    Of a GPU: the largest batch, a power of two, with which the margin is at most an eighth of its
    memory; of a pack 128 nodes, twice as many with every fourfold batch. A GPU waits for kernels
    where batches are small. On an H200 the heads of one layer of a 7B shape in bfloat16, 800
    prompts, took 11.2 s with 2^21 and 128 nodes; 4.3 to 4.8 s with 2^26 and 512, and 1.5 GB more
    memory; 3.8 s with 2^27 and 1,024, and 6 GB more. GPT-2 small's shape in float32 took 2.4 s, and
    1.4 s with 2^25 and 1,024.
    """
    if kind != "cuda":
        return SMALLEST
    fitting = SMALLEST
    for power in range(SMALLEST_BATCH, LARGEST_BATCH + 1):
        nodes = SMALLEST.pack_nodes << (power - SMALLEST_BATCH) // 2
        bounds = Bounds(2**power, nodes)
        if bounds.margin * SHARE <= total:
            fitting = bounds
    return fitting


def bounds_on(devices: Iterable[str]) -> Bounds:
    """The bounds of a model that computes on these devices of this machine: of their smallest."""
    return min(bounds_of(kind_of(device), total_memory(device)) for device in devices)


def total_memory(device: str) -> int:
    """The memory that bounds depend on, in bytes; 0 for what is no GPU, where nothing does."""
    return memory_of(device).total if kind_of(device) == "cuda" else 0
