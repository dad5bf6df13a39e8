"""Flows: how the stages compose. Read release.py first."""
