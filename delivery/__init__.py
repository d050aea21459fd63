"""Changes, their risk and their gates."""
