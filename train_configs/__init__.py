"""Shipped training configs (YAML), one folder a family; package data, so that they travel with the wheel."""
