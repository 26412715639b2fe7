"""The text encoders: domain vocabulary, masked-language modelling, metric learning, export."""
