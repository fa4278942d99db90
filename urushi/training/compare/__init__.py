"""Comparisons: methods, bases and tasks on equal terms, cell by cell."""
