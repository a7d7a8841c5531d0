"""The Space: plume-embed's search in a browser, with a look inside the rollout."""
