"""Numbers to tables, figures and pages. Computes no statistic."""
