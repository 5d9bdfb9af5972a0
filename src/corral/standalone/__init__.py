"""Row 7: composition, the only place that knows all names. It makes daemons out of cores, shells, stores and doors."""
