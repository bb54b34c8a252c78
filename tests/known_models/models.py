"""The models of which the claims are known to be true or false, and why they are.

Shares are of the clean LD, which comes to 1 of the codes that a prompt's subject has. What a head
adds or takes away is its gain, so zeroing a head of gain -.6 raises LD by 60 %, of any two such
heads by the sum of both.
"""

from dataclasses import dataclass
from typing import Any

from tests.known_models.hand_set import (
    FILLER,
    HEDGE,
    Binder,
    Copy,
    Design,
    Lookup,
    Previous,
    Role,
    Write,
)
from tinyablation.heads import Head
from tinyablation.verdicts.registered import Subject

# The heads that claims are about in every one of these models, unless it names others.
TRIO = (Head(0, 0), Head(0, 1), Head(0, 2))
NAMED = Subject(suppressor="0:0", trio=["0:0", "0:1", "0:2"], source="planted")
LAYERS, HEADS = 4, 8


@dataclass(frozen=True)
class KnownModel:
    """A design, and what it takes to judge it.

    design: of the model; earlier: of its training's steps before; reference: the model that its
    leading head is compared with.
    """

    design: Design
    earlier: tuple[Design, ...] = ()
    reference: str = ""


def trio(*roles: Role) -> dict[Head, Role]:
    """One role for each of the three named heads, or the same for all."""
    return dict(zip(TRIO, roles * (3 // len(roles)), strict=True))


def layer(number: int, role: Role) -> dict[Head, Role]:
    """The same role for every head of a layer."""
    return {Head(number, head): role for head in range(HEADS)}


def knowing(heads: dict[Head, Role], **more: Any) -> Design:
    """These heads, and in layer 1 those that know facts and kinds, so that all add up to 1."""
    given = [role for role in heads.values() if isinstance(role, Lookup)]
    fact = 1.0 - sum(role.fact for role in given)
    kind = 1.0 - sum(role.kind for role in given)
    return Design({**heads, Head(1, 0): Lookup(fact=fact), Head(1, 1): Lookup(kind=kind)}, **more)


def gated(seed: int) -> Design:
    """A head of layer 0 writes one constant: it hedges, and half shuts the head that knows facts."""
    return Design(
        {
            Head(0, 0): Write(0.5),
            Head(1, 0): Lookup(fact=1.0, found=14.0, gated=4.0),
            Head(1, 1): Lookup(kind=1.0),
        },
        seed=seed,
    )


def suppressed_by(share: float) -> Design:
    """The leading head takes this share of LD away, and nothing else does anything."""
    return knowing({Head(0, 0): Lookup(fact=-share)})


MODELS = {
    # The leader takes 60 % of LD, its partners 10 % each, on their own and in any company: of the
    # trio's 80 % it is 75, each of them 12.5. What they take, they write to the output themselves.
    # Head 6 writes hedges; they do not.
    "suppressors": KnownModel(
        knowing(
            {
                **trio(
                    Lookup(fact=-0.6, kind=-0.6),
                    Lookup(fact=-0.1, kind=-0.1),
                    Lookup(fact=-0.1, kind=-0.1),
                ),
                Head(0, 6): Write(1.0, HEDGE),
            }
        ),
        reference="gate",
    ),
    # The trio adds 6 % to LD: without it, LD is lower and the output a little less certain.
    "amplifiers": KnownModel(
        knowing(trio(Lookup(fact=0.04), Lookup(fact=0.01), Lookup(fact=0.01)))
    ),
    # The leader takes 20 %, but another head of its layer 40, and one of layer 2 takes 60; its
    # partners take 5 % each, two others of their layer 20.
    "outdone": KnownModel(
        knowing(
            {
                **trio(Lookup(fact=-0.2), Lookup(fact=-0.05), Lookup(fact=-0.05)),
                Head(0, 3): Lookup(fact=-0.4),
                Head(0, 4): Lookup(fact=-0.2),
                Head(0, 5): Lookup(fact=-0.2),
                Head(2, 0): Lookup(fact=-0.6),
            }
        )
    ),
    # Three heads take 30 % each.
    "equals": KnownModel(knowing(trio(Lookup(fact=-0.3)))),
    # Three heads lengthen the stream along one direction, from 12 to 18, so that what is known
    # counts less. Lengths add up, but LD goes with 1 / length^2: without one of them it is 1.27
    # times as large, without all 2.25 times.
    "conspirators": KnownModel(knowing(trio(Write(2.0, FILLER)))),
    # The heads of layer 0 take 4, 8, ... 32 % of LD, in the same order for facts and for kinds, or
    # in opposite ones.
    "ranked": KnownModel(
        knowing({Head(0, n): Lookup(fact=-0.04 * (n + 1), kind=-0.04 * (n + 1)) for n in range(8)})
    ),
    "reversed": KnownModel(
        knowing({Head(0, n): Lookup(fact=-0.04 * (n + 1), kind=-0.04 * (8 - n)) for n in range(8)})
    ),
    # What the leader does to facts goes through a head of layer 1 alone, and it hedges.
    "gate": KnownModel(gated(0), reference="gate-again"),
    "gate-again": KnownModel(gated(1)),
    # Each of the three adds half a token's identity to it, so that neighbours are farther apart;
    # or takes a fifth of it away.
    "stretchers": KnownModel(knowing(trio(Copy(0.5)))),
    "shrinkers": KnownModel(knowing(trio(Copy(-0.2)))),
    # Of half of the facts the trio leaves a tenth, so that LD says little about who is right; or
    # it makes up for what the model hardly knows. The latter believes the opposite of some facts.
    "uneven": KnownModel(knowing(trio(Lookup(half=-0.3)))),
    "evening": KnownModel(knowing(trio(Lookup(half=3.0)), faint=0.1, wrong=0.05)),
    # Half of LD comes from the last layer; or each head of it takes 3 % away.
    "sharp": KnownModel(knowing({Head(3, 0): Lookup(fact=0.5)})),
    "blunt": KnownModel(knowing(layer(3, Lookup(fact=-0.03)))),
    # A head of layer 2 names what had the colour; or one of the last layer does, and every head of
    # the middle layers takes 2 % away.
    "binder": KnownModel(Design({Head(0, 7): Previous(), Head(2, 2): Binder(1.0)})),
    "late-binder": KnownModel(
        Design(
            {
                Head(0, 7): Previous(),
                **layer(1, Binder(-0.02)),
                **layer(2, Binder(-0.02)),
                Head(3, 2): Binder(1.32),
            }
        )
    ),
    # The leader takes nothing at first and half of LD at last; or half of it from the start.
    "emerging": KnownModel(suppressed_by(0.5), (suppressed_by(0.0),)),
    "constant": KnownModel(suppressed_by(0.5), (suppressed_by(0.52),)),
    # One knows nothing, the other believes the opposite of everything.
    "ignorant": KnownModel(Design()),
    "contrary": KnownModel(Design({Head(1, 0): Lookup(fact=-1.0)})),
}
