"""The guard: no change where there is no damage, and no more than the damage explains."""
