"""Where Sosie meets Airflow, which nothing outside this package imports. DAG files import from here alone."""

DAG_ID = "dedup_hourly"
DAG_IDS = (DAG_ID, "dedup_rebuild", "dedup_train", "dedup_upkeep")

INDEX_POOL = "sosie_index"
"""Airflow pool of one slot: the embedded index loses acknowledged writes when two processes write at once."""
