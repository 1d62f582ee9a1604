"""Cluster profiles: YAML files that say where runs run, and what reads them."""
