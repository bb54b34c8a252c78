"""The cost of a sweep over all heads of a large model, in advance: shards, memory, hours.

FLOPs count matrix products, 2 per multiply-add, minus what the engine saves: a row starts at the
layer of its head, whose attention is not run again, and in the last layer only the last position is
computed. Shared prefixes are not taken into account, so templated corpora cost less.
"""

import argparse
import math
from dataclasses import dataclass
from typing import NamedTuple

from tinyablation.errors import TinyAblationError
from tinyablation.interventions.batteries import BASELINE, battery
from tinyablation.models.devices import gigabytes

BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}
REFERENCE_BYTES = 4  # main memory per parameter: other dtypes are verified in float32 on the CPU
SPARE = 0.1  # share of a device's memory for the activations of batches


class PlanError(TinyAblationError):
    """The figures of a model or cluster are impossible; the message says what to give."""


@dataclass(frozen=True)
class Shape:
    """The shape of a decoder, as far as it affects cost.

    parameters: total number; kv_heads: heads of keys and values (fewer than heads in grouped-query
    attention); head_size: d_head; embeddings: number of matrices of vocabulary x width (1: tied).
    """

    parameters: float
    layers: int
    heads: int
    kv_heads: int
    head_size: int = 128
    vocabulary: int = 32_000
    embeddings: int = 2

    def __post_init__(self) -> None:
        counts = (self.layers, self.heads, self.kv_heads, self.head_size, self.vocabulary)
        if min(*counts, self.embeddings) < 1 or self.heads % self.kv_heads:
            raise PlanError(
                f"{self.layers} layers of {self.heads} heads with {self.kv_heads} of keys and "
                "values: give counts of at least 1, the heads a multiple of the latter"
            )
        if self.mlp <= 0:
            raise PlanError(
                f"{self.parameters:.4g} parameters are too few for {self.layers} layers of "
                f"{self.heads} heads of {self.head_size} numbers and {self.vocabulary} tokens; "
                "give those of the model (--head-size, --vocabulary)"
            )

    @property
    def width(self) -> int:
        """The width of the residual stream, d_model."""
        return self.heads * self.head_size

    @property
    def key_value(self) -> int:
        """Parameters of the key and value projections of a layer."""
        return 2 * self.width * self.kv_heads * self.head_size

    @property
    def query_output(self) -> int:
        """Parameters of the query and output projections of a layer."""
        return 2 * self.width**2

    @property
    def mlp(self) -> float:
        """Parameters of a layer's MLP: the remaining parameters divided by the layers."""
        embedded = self.embeddings * self.vocabulary * self.width
        return (self.parameters - embedded) / self.layers - self.key_value - self.query_output

    @property
    def unembedding(self) -> float:
        """FLOPs of the logits at one position."""
        return 2.0 * self.width * self.vocabulary

    def layer(self, tokens: int) -> float:
        """FLOPs of a layer at all positions of a prompt."""
        weights = 2.0 * (self.query_output + self.key_value + self.mlp) * tokens
        return weights + 4.0 * tokens**2 * self.width

    def last_layer(self, tokens: int) -> float:
        """FLOPs of the last layer, in which only the last position is computed."""
        everywhere = 2.0 * self.key_value * tokens
        return everywhere + 2.0 * (self.query_output + self.mlp) + 4.0 * tokens * self.width

    def clean(self, tokens: int) -> float:
        """FLOPs of the unhooked model on a prompt, with the logits at its last position."""
        return self.layers * self.layer(tokens) + self.unembedding

    def naive(self, tokens: int) -> float:
        """FLOPs with logits at every position: what a plain loop with hooks runs per row."""
        return self.layers * self.layer(tokens) + tokens * self.unembedding

    def row(self, layer: int, tokens: int) -> float:
        """FLOPs of one head of a layer ablated on one prompt, from its clean pass."""
        if layer == self.layers - 1:
            positions, after = 1, 0.0
        else:
            positions, whole = tokens, self.layers - layer - 2
            after = whole * self.layer(tokens) + self.last_layer(tokens)
        change = 2.0 * self.head_size * self.width * positions
        return change + 2.0 * self.mlp * positions + after + self.unembedding


class Sweep(NamedTuple):
    """One sweep: every head of every layer, zeroed on every prompt, under one condition."""

    interventions: int
    shards: int  # including the baseline
    flops: float
    naive: float  # of one full forward pass a row


def sweep(shape: Shape, prompts: int, tokens: int) -> Sweep:
    """The cost of battery "zero", summed over its shards, each of which has its own clean pass."""
    shards = battery("zero").shards(shape.layers, shape.heads)
    layers = [each.columns.layer for shard in shards for each in shard.interventions]
    clean = len(shards) * shape.clean(tokens)
    flops = prompts * (clean + sum(shape.row(layer, tokens) for layer in layers))
    naive = prompts * (1 + len(layers)) * shape.naive(tokens)
    assert shards[0].key == BASELINE
    return Sweep(len(layers), len(shards), flops, naive)


class Cluster(NamedTuple):
    """Devices, their memory in bytes, and the FLOP/s that a sweep reaches on one of them."""

    devices: int
    memory: float
    rate: float
    dtype: str


class Plan(NamedTuple):
    """A study on a cluster: sweeps (in units of whole ones) and hours.

    spread: the number of devices that hold the model together. They hold its layers one after
    another, so only one computes at a time: they have the memory of all and the rate of one.
    """

    weights: float
    spread: int
    workers: int
    sweeps: float
    flops: float
    hours: float


def plan(shape: Shape, one: Sweep, conditions: int, drawn: float, cluster: Cluster) -> Plan:
    """The plan of a study on a cluster.

    drawn: measured prompts per condition, in units of whole sweeps. Raises PlanError if the cluster
    cannot hold the model.
    """
    weights = shape.parameters * BYTES[cluster.dtype]
    spread = math.ceil(weights / (cluster.memory * (1 - SPARE)))
    workers = cluster.devices // spread
    if workers < 1:
        raise PlanError(
            f"{gigabytes(int(weights))} of weights in {cluster.dtype} need {spread} devices of "
            f"{gigabytes(int(cluster.memory))}, and there are {cluster.devices}"
        )
    sweeps = conditions * drawn
    flops = sweeps * one.flops
    hours = flops / (workers * cluster.rate) / 3600
    return Plan(weights, spread, workers, sweeps, flops, hours)


# --- the command ---------------------------------------------------------------------------------


def add_commands(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Register the command of this module."""
    parser = commands.add_parser(
        "plan",
        help="what a sweep over all heads of a large model costs",
        description="Computes shards, memory and hours of battery zero on a cluster. Nothing is "
        "loaded or measured. Give the rate that one device actually reaches on matrix products of "
        "this dtype, not the vendor's figure.",
    )
    parser.add_argument(
        "--parameters", type=float, required=True, help="parameters of the model, such as 70e9"
    )
    parser.add_argument("--layers", type=int, required=True)
    parser.add_argument("--heads", type=int, required=True, help="heads per layer")
    parser.add_argument("--kv-heads", type=int, help="heads of keys and values (default: --heads)")
    parser.add_argument("--head-size", type=int, default=128, help="default: %(default)s")
    parser.add_argument("--vocabulary", type=int, default=32_000, help="default: %(default)s")
    parser.add_argument(
        "--tied", action="store_true", help="embedding and unembedding are one matrix"
    )
    parser.add_argument("--conditions", type=int, required=True)
    parser.add_argument("--seeds", type=int, default=1, help="default: %(default)s")
    parser.add_argument(
        "--share",
        type=float,
        default=1.0,
        help="of the fact clusters that each seed draws (default: %(default)s, and a seed draws "
        "nothing)",
    )
    parser.add_argument("--prompts", type=int, required=True, help="prompts per condition")
    parser.add_argument("--tokens", type=int, required=True, help="tokens per prompt")
    parser.add_argument(
        "--rate", type=float, required=True, metavar="TFLOP/S", help="reached by one device"
    )
    parser.add_argument("--devices", type=int, required=True)
    parser.add_argument(
        "--device-memory", type=float, default=80.0, metavar="GB", help="default: %(default)s"
    )
    parser.add_argument("--dtype", choices=tuple(BYTES), default="bfloat16")
    parser.set_defaults(run=_run)


def _run(options: argparse.Namespace) -> None:
    print("\n".join(lines(options)))


def lines(options: argparse.Namespace) -> list[str]:
    """The lines that the command prints."""
    for name in ("conditions", "seeds", "prompts", "tokens", "rate", "devices", "device_memory"):
        if getattr(options, name) <= 0:
            raise PlanError(
                f"--{name.replace('_', '-')} {getattr(options, name)}: give more than 0"
            )
    if not 0 < options.share <= 1:
        raise PlanError(f"--share {options.share}: give more than 0, and at most 1")
    shape = Shape(
        options.parameters,
        options.layers,
        options.heads,
        options.kv_heads or options.heads,
        options.head_size,
        options.vocabulary,
        1 if options.tied else 2,
    )
    cluster = Cluster(
        options.devices, options.device_memory * 1e9, options.rate * 1e12, options.dtype
    )
    one = sweep(shape, options.prompts, options.tokens)
    drawn = options.seeds * options.share if options.share < 1 else 1.0
    found = plan(shape, one, options.conditions, drawn, cluster)
    weights, reference = (
        gigabytes(int(size)) for size in (found.weights, shape.parameters * REFERENCE_BYTES)
    )
    runs = options.conditions * (options.seeds if options.share < 1 else 1)
    alone = one.flops / cluster.rate / 3600
    return [
        f"model    {shape.layers} layers of {shape.heads} heads, width {shape.width:,}",
        f"weights  {weights} in {cluster.dtype}: {found.spread} device(s) a worker"
        + (", of which one computes at a time" if found.spread > 1 else ""),
        f"memory   {reference} of main memory a worker: a sample is verified on the CPU in float32",
        f"sweep    {one.interventions:,} heads x {options.prompts:,} prompts of {options.tokens} "
        f"tokens = {one.shards} shards, {one.flops:.3g} FLOP,",
        f"         {one.naive / one.flops:.1f} times less than the plain hooked loop; "
        f"{alone:.2f} hours of one worker at {options.rate:g} TFLOP/s",
        *_seeds(options),
        f"in all   {runs} runs x {one.shards} = {runs * one.shards:,} shards, worth "
        f"{found.sweeps:g} sweeps: {found.flops:.3g} FLOP",
        f"hours    {found.hours:.1f} with {found.workers} worker(s) on {options.devices} "
        "device(s), each of which reads the weights once",
    ]


def _seeds(options: argparse.Namespace) -> list[str]:
    if options.seeds == 1 and options.share == 1:
        return []
    if options.share == 1:
        return [
            f"seeds    {options.seeds} asked for, 1 measured: a sweep draws nothing, so another "
            "seed gives the same figures",
            "         at another address; with --share below 1 each seed draws its fact clusters",
        ]
    return [
        f"seeds    {options.seeds}, each on its own draw of {options.share:g} of the fact "
        f"clusters, worth {options.seeds * options.share:g} sweeps a condition;",
        "         nothing measured for one seed is reused for another, weights and corpora are",
    ]
