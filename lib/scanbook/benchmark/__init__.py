"""What notebook 06 measures on this machine: training and inference speed, cost; and the latency of a service."""
