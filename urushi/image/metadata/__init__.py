"""What a file says beside its pixels: EXIF, XMP, IPTC, and further pictures."""
