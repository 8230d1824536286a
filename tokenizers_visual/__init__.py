"""Visual tokenizers: one folder a family."""
