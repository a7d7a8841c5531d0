"""Do latent steps earn their cost? Diagnostics of trained models, rivals of the rollout, tables and plots of both."""
