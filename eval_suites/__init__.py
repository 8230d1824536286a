"""Evaluation suites: one folder a protocol; the metrics and statistics that they share."""
