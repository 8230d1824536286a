"""Files -> shards -> ordered samples -> batches. Knows no model; torch only in loader.py and, lazily, in decode.py."""
