"""The store of what was measured: addresses, shards, locks, artefacts."""
