"""Learning studies: resumable grids of short runs whose results stand in docs/results. `make results` runs them."""
