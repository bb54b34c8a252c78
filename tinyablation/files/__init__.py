"""Files: read within limits, written atomically, listed in manifests, hashed by content."""
