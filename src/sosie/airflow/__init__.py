"""Where Sosie meets Airflow. Nothing outside this package imports Airflow, and the DAG files import `bridge` alone."""

DAG_ID = "dedup_hourly"

INDEX_POOL = "sosie_index"
"""Airflow pool of one slot: the embedded index loses acknowledged writes when two processes write at once."""
