"""Kubernetes manifests of a served model: rendering (pure) and what a cluster has room for."""
