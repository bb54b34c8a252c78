"""What claims read from tables: sweeps, coalitions, patching, paths and more."""
