"""Data: pairs in folders, packs of pictures for training, and checks of both."""
