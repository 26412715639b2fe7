"""The picture encoders: masked auto-encoding, metric learning on re-listings, export."""
