"""Run reports: one offline HTML file."""
