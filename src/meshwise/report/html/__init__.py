"""`report.html`: one file that opens without a network, on a phone, on paper, light and dark."""

from meshwise.report.html.page import render as render
