"""Remote sensing and SAR models: one folder a family."""
