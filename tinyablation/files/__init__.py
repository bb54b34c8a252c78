"""Files and hashes: written atomically, listed in manifests, named by what they hold."""
