"""A disk under a session of the real engine: it tells all that is done to it, fails on demand and loses its power."""
