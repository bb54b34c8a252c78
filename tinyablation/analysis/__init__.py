"""What claims read of tables: sweeps, coalitions, patching, paths and the rest."""
