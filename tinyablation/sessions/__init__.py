"""Several sessions: reading, comparing and merging them."""
