"""The store of measurements: addresses, shards, locks, artefacts."""
