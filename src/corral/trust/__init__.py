"""Who may take part: the cluster's authority, tokens, certificates of nodes, and the gates before the daemons."""
