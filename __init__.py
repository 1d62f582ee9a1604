"""alphagrid: grids of training runs on Slurm, compared within time budgets."""

__version__ = "0.1.0"
