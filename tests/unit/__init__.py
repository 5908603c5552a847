"""One module at a time, without processes or servers."""
