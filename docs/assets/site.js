// The search is a dialog, and a dialog needs a name.
document.querySelector(".md-search")?.setAttribute("aria-label", "Search")
