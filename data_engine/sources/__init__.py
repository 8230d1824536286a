"""Readers of raw layouts, one a file: they turn files as users have them into what the shard writer takes."""
