"""Loading from, saving to and describing Hugging Face model folders."""
