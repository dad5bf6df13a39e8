"""Envoy in front of the engine: its configuration rendered pure, applied through watched files, never by restart."""
