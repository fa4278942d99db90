"""Colours: profiles, tone curves and primaries, and what a file's numbers mean."""
