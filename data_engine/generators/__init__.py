"""Data that is made rather than collected: scenes whose truth is known, for tests, demonstrations and experiments."""
