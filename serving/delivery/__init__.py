"""Delivery to a cluster: what the rollout asks for becomes commits that Argo CD syncs, or server-side applies. The machine is serving/rollout's."""
