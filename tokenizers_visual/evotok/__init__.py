"""EvoTok: a unified image tokenizer by residual vector quantisation (arXiv 2603.12108)."""
