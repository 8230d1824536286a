"""Evaluation suites: one folder a protocol. No suite has moved in yet."""
