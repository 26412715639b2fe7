"""One module a subject; each has `routes(page)`."""
