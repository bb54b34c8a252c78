"""Numerical tolerances: the trusted device and dtype, and how far others may deviate from it."""

# How far a figure may differ from its value on the CPU in float32, by dtype: as a share of the
# largest of the sample, or of 1 if that is larger. The largest difference of LD on the CPU (four
# embedded families, four conditions, batteries zero and methods; LD up to 12 logits): 6e-6 logits
# in float32, .012 in float16, .093 in bfloat16, that is 1e-6, 2e-3 and 2e-2 of the largest;
# accelerators sum in other orders, and deeper models round more often, hence the margin. A device
# that inverts logits is off by twice the largest.
TOLERANCES = {"float32": 1e-3, "float16": 5e-2, "bfloat16": 2e-1}
# Trusted to verify everything else: the arithmetic in which the engine is tested to be exact.
TRUSTED_DEVICE, TRUSTED_DTYPE = "cpu", "float32"
