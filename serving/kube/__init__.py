"""The way to a Kubernetes API server: one configuration, one mapping of errors, for all that asks one."""
