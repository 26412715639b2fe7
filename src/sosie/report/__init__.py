"""What one run did, for people: `gather` reads it, `write` makes the page, `summary` the last words in a terminal."""

from sosie.report.data import ReportData
from sosie.report.gather import gather
from sosie.report.page import render, write
from sosie.report.summary import summary

__all__ = ["ReportData", "gather", "render", "summary", "write"]
