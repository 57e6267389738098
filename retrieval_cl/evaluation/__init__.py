"""Runs against judgements: metrics per query, intervals and paired tests."""
