"""What Urushi writes and reads, without torch."""
