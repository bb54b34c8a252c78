"""Speed, memory, start-up, workers: each against a peer on the same machine. See README.md."""
