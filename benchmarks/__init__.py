"""Speed and memory, run by hand; the tables are in docs/performance.md."""
