"""Turns numbers into tables, figures and pages. Computes no statistic."""
