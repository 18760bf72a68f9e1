"""Reports: what a run came to, as one page that one opens, `report.html` in its folder."""
