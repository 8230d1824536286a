"""What radar images mean and how they scatter: scales, polarisations, speckle, and the descriptors a model reads."""
