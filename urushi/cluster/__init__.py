"""What runs on a Ray cluster: restoring millions of pictures, and the cells of comparisons.

Ray is imported where `--cluster` asks for it, and nowhere else.
"""
