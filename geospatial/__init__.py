"""Remote sensing and SAR models: one folder a family. No family has moved in yet."""
