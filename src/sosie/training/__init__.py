"""How the models under `models/` come to be. Runs apart from the hourly job, and may import torch at the top."""
