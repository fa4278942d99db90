"""File formats: what each can hold, how one is recognised, and why one cannot be read."""
