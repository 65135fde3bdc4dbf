"""What code says whatever its layout and place, and digests of it."""
