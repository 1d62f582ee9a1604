"""The training loop in a job, the step size α*, and what they need: no Slurm in here."""
