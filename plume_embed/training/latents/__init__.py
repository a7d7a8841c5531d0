"""What happens inside a rollout: its cache behind each step, and causal tests of what the steps carry."""
