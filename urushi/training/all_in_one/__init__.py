"""All-in-one models: a router, its experts and what decides between them, in one recipe."""
