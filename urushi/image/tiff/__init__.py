"""TIFF beyond what libvips reads and writes: directories, tags, and stacks of planes."""
