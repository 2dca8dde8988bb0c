"""One file a phase: its metrics, how each is derived, and what in its measurements would contradict itself."""
