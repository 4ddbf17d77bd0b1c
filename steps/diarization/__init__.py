"""Who speaks when in a recording: windows, clusters, resegmentation, and the error of the result."""
