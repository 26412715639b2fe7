"""Where Sosie meets Airflow. Nothing outside this package imports Airflow, and the DAG files import `bridge` alone."""
