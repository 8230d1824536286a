"""What should not be trained on: copies, near copies, what a test set holds, and what a filter refuses."""
