"""Evaluation: metrics by named protocols, benchmarks, and reports of their scores."""
