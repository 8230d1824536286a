"""The shared Lightning trainer."""
