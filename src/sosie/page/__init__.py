"""The page for people: what waits for a judgement, clusters, hours and models, drawn on the server from the lake.

It knows no Airflow: whoever mounts it says who is asking (`Person`) and what that person may do.
"""

from sosie.page.app import build, install
from sosie.page.people import Identify, Person, Refused

__all__ = ["Identify", "Person", "Refused", "build", "install"]
