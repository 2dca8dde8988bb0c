"""A platform without a framework, for tests of everything around a backend."""
