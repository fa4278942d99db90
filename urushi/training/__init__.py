"""Training: recipes, batches, losses, and one loop for all of them."""
