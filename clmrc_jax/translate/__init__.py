"""Machine translation and what the first paper builds on it: aligned data and back-translation."""
