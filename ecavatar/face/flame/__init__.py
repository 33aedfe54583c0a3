"""FLAME's files as they ship, read once without running anything, and the face asset made of them."""
