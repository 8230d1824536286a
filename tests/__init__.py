"""The tests. This file makes them the package `tests`: torch-fidelity installs another one of that name."""
