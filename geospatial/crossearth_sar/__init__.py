"""CrossEarth-SAR: a foundation model for radar pictures, with experts chosen by physics."""
