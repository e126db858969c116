"""Models that lie elsewhere: buckets, archives and folders, brought into a repository on this machine's disk."""
