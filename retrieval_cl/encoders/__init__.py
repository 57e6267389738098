"""Towers: what turns inputs of one view into unit vectors."""
