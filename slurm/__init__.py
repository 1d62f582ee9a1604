"""Clients of Slurm's commands: plain records in, plain records out. They know no run and no submission."""
