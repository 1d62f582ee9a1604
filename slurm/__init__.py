"""Clients of Slurm's commands. They return plain records and do not depend on runs or submissions."""
