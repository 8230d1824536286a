"""Segmentation of radar rasters: how good the maps are, at their edges, and away from the training domain."""
