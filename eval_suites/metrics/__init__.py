"""Metrics as plain functions: arrays in, one number per sample out."""
