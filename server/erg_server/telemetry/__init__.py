"""What the server measures of itself, and how it tells: metrics, statistics, probes, logs, traces."""
