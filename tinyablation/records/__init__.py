"""One record per test case, its schema and its files."""
