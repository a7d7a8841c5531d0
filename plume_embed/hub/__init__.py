"""Models in and out: released weights, fresh models over a backbone, folders for the Hub."""
