"""From a grid specification (YAML) to the runs of an experiment."""
