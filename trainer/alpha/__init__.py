"""The step size α*: how it is estimated, and what is done with it."""
