"""How exact figures are: what is trusted, and how far the rest may lie from it."""

# How far a figure may lie from the same on the CPU in float32, by dtype: as a share of the largest
# of the sample, and of 1 at least. The largest seen in LD, on the CPU (four embedded families, four
# conditions, batteries zero and methods; LD up to 12 logits): 6e-6 logits in float32, .012 in
# float16, .093 in bfloat16, that is 1e-6, 2e-3 and 2e-2 of the largest; accelerators sum in other
# orders, and deeper models round more often, hence the margin. A device that inverts logits is off
# by 2 of the largest.
TOLERANCES = {"float32": 1e-3, "float16": 5e-2, "bfloat16": 2e-1}
# What is trusted to verify the rest: the arithmetic that the engine is proved exact in.
TRUSTED_DEVICE, TRUSTED_DTYPE = "cpu", "float32"
