"""Cluster profiles: YAML files that describe where runs execute, and the modules that read and check them."""
