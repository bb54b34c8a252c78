"""Evidence bundles, from which verdicts can be rederived without weights."""
