"""Training a router on degraded crops."""
