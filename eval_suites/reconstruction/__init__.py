"""How close an image tokenizer's output is to its input, level by level."""
