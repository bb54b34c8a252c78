"""Several sessions: read, compared, merged."""
