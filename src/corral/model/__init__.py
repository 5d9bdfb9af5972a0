"""Row 1: the nouns. Frozen records and pure functions on them; nothing here does I/O."""
