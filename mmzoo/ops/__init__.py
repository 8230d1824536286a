"""Plain functions: each fast path has a `reference` of the same signature beside it."""
