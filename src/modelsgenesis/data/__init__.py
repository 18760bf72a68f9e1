"""Reading, preparation, cache, sampling, labelled data."""
